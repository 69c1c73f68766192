#include "resynth/topk.h"

#include <math.h>

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "dots/dots.h"
#include "topk/math.h"

namespace resynth {
namespace {

constexpr int64_t rows_at_once = 48;                 // they stay in the L2 cache for all queries
constexpr uint64_t cache_bytes = uint64_t{8} << 20;  // one core's share of the last-level cache
constexpr int64_t rows_marked_at_once = 8;           // their marks fill one word
constexpr int64_t queries_at_once = 64;              // their sums lie on the stack
constexpr float lowest = -3.4028235e38f;             // the lowest finite float

// The best rows so far of one query and group: a heap in the output arrays, the worst at its root.
struct Best {
    float* scores;
    int64_t* indices;
    int64_t count;

    bool before(int64_t a, int64_t b) const { return ranks_before(scores[a], indices[a], scores[b], indices[b]); }
    void swap(int64_t a, int64_t b) {
        std::swap(scores[a], scores[b]);
        std::swap(indices[a], indices[b]);
    }
    void sink(int64_t at) {
        for (int64_t child = 2 * at + 1; child < count; at = child, child = 2 * at + 1) {
            if (child + 1 < count && before(child, child + 1)) ++child;
            if (!before(at, child)) return;
            swap(at, child);
        }
    }
    void append(float score, int64_t index) {
        scores[count] = score;
        indices[count] = index;
        for (int64_t at = count++; at > 0 && before((at - 1) / 2, at); at = (at - 1) / 2) swap(at, (at - 1) / 2);
    }
    // Rows come in ascending order, so a row with the score of the worst ranks after it.
    void offer(float score, int64_t index, int64_t k) {
        if (count < k) return append(score, index);
        if (!(score > scores[0])) return;
        scores[0] = score;
        indices[0] = index;
        sink(0);
    }
    // Heap sort: the worst entry goes last.
    void finish(int64_t k) {
        std::fill(scores + count, scores + k, -INFINITY);
        std::fill(indices + count, indices + k, -1);
        while (count > 1) {
            swap(0, --count);
            sink(0);
        }
    }
};

template <class Row>
class Search {
 public:
    explicit Search(const TopKArgs& args)
        : args_(args),
          kernels_(choose_dots<Row>()),
          streams_(args.row_count * args.dimension * sizeof(Row) > cache_bytes),
          best_(std::min(queries_at_once, args.query_count) * args.group_count),
          worst_(std::min(queries_at_once, args.query_count) * (args.group_count + 1)) {}

    TopKFault operator()() {
        const TopKFault fault = unfit_query();
        if (fault.where != Where::nowhere || args_.k == 0) return fault;
        for (first_ = 0; first_ < args_.query_count; first_ += queries_at_once) {
            queries_ = std::min(queries_at_once, args_.query_count - first_);
            start();
            for (int64_t begin = 0; begin < args_.row_count; begin += rows_at_once) {
                const TopKFault fault = rows(begin, std::min(rows_at_once, args_.row_count - begin));
                if (fault.where != Where::nowhere) return fault;
            }
            for (int64_t i = 0; i < queries_ * args_.group_count; ++i) best_[i].finish(args_.k);
        }
        return nothing;
    }

 private:
    using Where = TopKFault::Where;
    static constexpr TopKFault nothing{Where::nowhere, -1, -1};

    TopKFault unfit_query() const {
        for (int64_t q = 0; q < args_.query_count; ++q) {
            const float* x = args_.queries + q * args_.dimension;
            if (!std::all_of(x, x + args_.dimension, [](float each) { return isfinite(each); }))
                return {Where::queries, q, -1};
            if (args_.offsets && !isfinite(args_.offsets[q])) return {Where::offsets, q, -1};
        }
        return nothing;
    }

    void start() {
        for (int64_t i = 0, at = first_ * args_.group_count * args_.k; i < queries_ * args_.group_count;
             ++i, at += args_.k)
            best_[i] = {args_.scores + at, args_.indices + at, 0};
        std::fill(worst_.begin(), worst_.end(), -INFINITY);
        for (int64_t q = 0; q < queries_; ++q) worst(q)[args_.group_count] = INFINITY;
    }

    TopKFault rows(int64_t begin, int64_t count) {
        find_groups(begin, count);
        sum(begin, count);
        for (int64_t q = 0; q < queries_; ++q) {
            scale_and_compare(q, begin, count);
            for (int64_t n = 0; n < count; n += rows_marked_at_once) {
                uint64_t any;
                std::memcpy(&any, marked_ + n, sizeof any);
                if (any == 0) continue;
                const TopKFault fault = offer(q, begin, n, std::min(n + rows_marked_at_once, count));
                if (fault.where != Where::nowhere) return fault;
            }
        }
        return nothing;
    }

    // Inserts the marked rows of n … end - 1 into the best of their groups.
    TopKFault offer(int64_t q, int64_t begin, int64_t n, int64_t end) {
        for (; n < end; ++n) {
            if (!marked_[n] || group_[n] == args_.group_count) continue;
            float score = dots_[q][n];
            if (!isfinite(score)) {
                const TopKFault fault = wide(first_ + q, begin + n, score);
                if (fault.where != Where::nowhere) return fault;
            }
            Best& best = best_[q * args_.group_count + group_[n]];
            best.offer(score, begin + n, args_.k);
            if (best.count == args_.k) worst(q)[group_[n]] = best.scores[0];
        }
        return nothing;
    }

    void find_groups(int64_t begin, int64_t count) {
        for (int64_t n = 0; n < count; ++n) {
            const int64_t group = args_.groups ? args_.groups[begin + n] : 0;
            group_[n] = group < 0 ? args_.group_count : group;
        }
    }

    // Sums the inner products with `count` rows over the blocks of columns.
    void sum(int64_t begin, int64_t count) {
        const float* x = args_.queries + first_ * args_.dimension;
        for (int64_t b = 0; b < args_.block_count; ++b) {
            const int64_t columns = args_.blocks[b].columns;
            const Row* y = static_cast<const Row*>(args_.blocks[b].rows) + begin * columns;
            float (*const into)[rows_at_once] = b == 0 ? dots_ : block_dots_;
            kernels_.dots(x, args_.dimension, queries_, y, count, columns, into[0], rows_at_once, streams_);
            x += columns;
            if (b == 0) continue;
            for (int64_t q = 0; q < queries_; ++q)
                for (int64_t n = 0; n < count; ++n) dots_[q][n] += block_dots_[q][n];
        }
    }

    // Turns inner products into scores. Marks the rows that may enter their group's best, and those whose score
    // overflowed. The values per group are gathered in a loop of their own, so that the compiler can vectorise the
    // rest.
    void scale_and_compare(int64_t q, int64_t begin, int64_t count) {
        float* const scores = dots_[q];
        float worst[rows_at_once];
        for (int64_t n = 0; n < count; ++n) worst[n] = this->worst(q)[group_[n]];
        for (int64_t n = 0; n < count; ++n) scores[n] = score_of(args_, first_ + q, begin + n, scores[n]);
        for (int64_t n = 0; n < count; ++n) marked_[n] = !(scores[n] <= worst[n]) | !(scores[n] >= lowest);
    }

    // The score to exceed in each group. The group after the last holds the rows that are left out.
    float* worst(int64_t q) { return worst_.data() + q * (args_.group_count + 1); }

    // The score in double, for rows whose float sums overflowed: huge values, or values that are not finite.
    TopKFault wide(int64_t q, int64_t n, float& score) const {
        const float* x = args_.queries + q * args_.dimension;
        double dot = 0.0;
        for (int64_t b = 0; b < args_.block_count; ++b) {
            const int64_t columns = args_.blocks[b].columns;
            const Row* y = static_cast<const Row*>(args_.blocks[b].rows) + n * columns;
            for (int64_t i = 0; i < columns; ++i) dot += static_cast<double>(x[i]) * value(y[i]);
            x += columns;
        }
        if (!isfinite(dot)) return {Where::gallery, -1, n};  // double holds every product of two floats
        if (args_.weights && !isfinite(args_.weights[n])) return {Where::weights, -1, n};
        score = static_cast<float>(score_of(args_, q, n, dot));
        return isfinite(score) ? nothing : TopKFault{Where::score, q, n};
    }

    const TopKArgs& args_;
    const DotKernels<Row> kernels_;
    const bool streams_;               // the gallery does not fit the cache
    int64_t first_ = 0, queries_ = 0;  // the queries of this pass
    std::vector<Best> best_;           // (queries, groups)
    std::vector<float> worst_;         // (queries, groups + 1), see worst()
    int64_t group_[rows_at_once];
    uint8_t marked_[rows_at_once] = {};
    float dots_[queries_at_once][rows_at_once], block_dots_[queries_at_once][rows_at_once];
};

}  // namespace

TopKFault topk(const TopKArgs& args) {
    if (args.storage == Storage::float16) return Search<Half>(args)();
    return Search<float>(args)();
}

}  // namespace resynth
