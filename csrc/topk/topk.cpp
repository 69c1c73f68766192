#include "resynth/topk.h"

#include <algorithm>
#include <utility>

#include "dots/dots.h"
#include "similarity/math.h"
#include "topk/math.h"

namespace resynth {
namespace {

constexpr int64_t rows_at_once = 48;                 // stay in the second cache while all queries pass
constexpr uint64_t cache_bytes = uint64_t{8} << 20;  // what one core may hope to find in its last cache
constexpr int64_t queries_at_once = 64;              // their sums lie on the stack

template <class X, class Y>
Moments<double> moments_wide(const X* x, const Y* y, int64_t dimension) {
    Moments<double> sum{0.0, 0.0};
    for (int64_t i = 0; i < dimension; ++i) {
        sum.dot += static_cast<double>(value(x[i])) * value(y[i]);
        sum.yy += static_cast<double>(value(y[i])) * value(y[i]);
    }
    return sum;
}

// The best rows so far of one query: a heap in the output arrays, the worst at its root.
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
    // Rows come in rising order, so that one with the score of the worst goes behind it.
    void offer(float score, int64_t index, int64_t k) {
        if (count < k) return append(score, index);
        if (!(score > scores[0])) return;
        scores[0] = score;
        indices[0] = index;
        sink(0);
    }
    // Heap sort: the worst goes last.
    void sort() {
        while (count > 1) {
            swap(0, --count);
            sink(0);
        }
        count = 0;
    }
};

float inverse_norm(float squared_norm) { return is_exact(squared_norm) ? 1.0f / sqrtf(squared_norm) : NAN; }

template <class Row>
class Search {
 public:
    explicit Search(const TopKArgs& args)
        : args_(args),
          gallery_(static_cast<const Row*>(args.gallery)),
          kernels_(choose_dots<Row>()),
          streams_(args.row_count * args.dimension * sizeof(Row) > cache_bytes) {}

    TopKFault operator()() {
        for (int64_t q = 0; q < args_.query_count; ++q)
            if (!isfinite(moments_wide(query(q), query(q), args_.dimension).yy)) return {Where::queries, q, -1};
        for (first_ = 0; first_ < args_.query_count; first_ += queries_at_once) {
            queries_ = std::min(queries_at_once, args_.query_count - first_);
            start();
            for (int64_t begin = 0; begin < args_.row_count; begin += rows_at_once) {
                const TopKFault fault = block(begin, std::min(rows_at_once, args_.row_count - begin));
                if (fault.where != Where::nowhere) return fault;
            }
            for (int64_t q = 0; q < queries_; ++q) best_[q].sort();
        }
        return {Where::nowhere, -1, -1};
    }

 private:
    using Where = TopKFault::Where;

    const float* query(int64_t q) const { return args_.queries + q * args_.dimension; }
    const Row* row(int64_t n) const { return gallery_ + n * args_.dimension; }

    void start() {
        const DotKernels<float> own = choose_dots<float>();
        for (int64_t q = 0; q < queries_; ++q) {
            const int64_t at = (first_ + q) * args_.k;
            best_[q] = {args_.scores + at, args_.indices + at, 0};
            float dot, xx = 1.0f;
            if (args_.metric == Metric::cosine)
                own.moments(query(first_ + q), query(first_ + q), 1, args_.dimension, &dot, &xx, false);
            query_scale_[q] = inverse_norm(xx);
        }
    }

    TopKFault block(int64_t begin, int64_t count) {
        const float* x = query(first_);
        const int64_t d = args_.dimension;
        if (args_.metric == Metric::cosine) {
            float yy[rows_at_once];
            kernels_.moments(x, row(begin), count, d, dots_[0], yy,
                             streams_);  // the first query's, and the rows' norms with them
            if (queries_ > 1) kernels_.dots(x + d, queries_ - 1, row(begin), count, d, dots_[1], rows_at_once, false);
            for (int64_t n = 0; n < count; ++n) row_scale_[n] = inverse_norm(yy[n]);
        } else {
            kernels_.dots(x, queries_, row(begin), count, d, dots_[0], rows_at_once, streams_);
        }
        for (int64_t q = 0; q < queries_; ++q) {
            if (!scale_and_compare(q, count)) continue;
            for (int64_t n = 0; n < count; ++n) {
                float score = dots_[q][n];
                if (!isfinite(score)) {
                    const TopKFault fault = wide(first_ + q, begin + n, score);
                    if (fault.where != Where::nowhere) return fault;
                }
                best_[q].offer(score, begin + n, args_.k);
            }
        }
        return {Where::nowhere, -1, -1};
    }

    // Inner products → scores; whether any of them may enter the best or needs a second look. Without branches inside,
    // so that the compiler makes vectors of it.
    bool scale_and_compare(int64_t q, int64_t count) {
        float* const dots = dots_[q];
        if (args_.metric == Metric::cosine)
            for (int64_t n = 0; n < count; ++n) dots[n] = clamped_cosine(dots[n] * query_scale_[q] * row_scale_[n]);
        const bool filled = best_[q].count == args_.k && args_.k > 0;
        const float worst = filled ? best_[q].scores[0] : -INFINITY;
        int any = 0;
        for (int64_t n = 0; n < count; ++n) any |= !(dots[n] <= worst) | !(dots[n] >= -3.4028235e38f);
        return any != 0;
    }

    // The score where the float sums left their range, in double: of zero, denormal and huge rows.
    TopKFault wide(int64_t q, int64_t n, float& score) const {
        const Moments<double> m = moments_wide(query(q), row(n), args_.dimension);
        if (!isfinite(m.yy)) return {Where::gallery, -1, n};
        if (args_.metric == Metric::cosine) {
            score = cosine(m.dot, moments_wide(query(q), query(q), args_.dimension).yy, m.yy);
        } else {
            score = static_cast<float>(m.dot);
            if (!isfinite(score)) return {Where::product, q, n};
        }
        return {Where::nowhere, -1, -1};
    }

    const TopKArgs& args_;
    const Row* const gallery_;
    const DotKernels<Row> kernels_;
    const bool streams_;               // the gallery comes from memory
    int64_t first_ = 0, queries_ = 0;  // the queries of this pass
    Best best_[queries_at_once];
    float query_scale_[queries_at_once], row_scale_[rows_at_once];  // 1 / norm, NaN where float is too narrow
    float dots_[queries_at_once][rows_at_once];
};

}  // namespace

TopKFault topk(const TopKArgs& args) {
    if (args.storage == Storage::bfloat16) return Search<Bfloat16>(args)();
    return Search<float>(args)();
}

}  // namespace resynth
