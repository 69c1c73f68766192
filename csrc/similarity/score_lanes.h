// One probe on the compiler's own vectors: sums over columns, eight of them side by side whatever the vectors' width,
// each added in the order of the columns. So the bits depend on neither the instruction set nor the other probes.
#pragma once

#include <cstring>

#include "similarity/score.h"
#include "similarity/score_math.h"

namespace resynth {
namespace {

template <class Vector>
struct Eight {
    static constexpr int width = sizeof(Vector) / sizeof(double), parts = score_lanes / width;
    Vector part[parts];

    // Vector by vector: of 64 bytes at once GCC makes copies by way of the stack.
    static Eight load(const double* from) {
        Eight value;
        for (int k = 0; k < parts; ++k) std::memcpy(&value.part[k], from + k * width, sizeof(Vector));
        return value;
    }
    static Eight load(const double* from, int64_t count) {
        double filled[score_lanes] = {};
        for (int64_t i = 0; i < count; ++i) filled[i] = from[i];
        return load(filled);
    }
    void store(double* to) const {
        for (int k = 0; k < parts; ++k) std::memcpy(to + k * width, &part[k], sizeof(Vector));
    }

    Eight operator+(const Eight& other) const {
        return with(other, [](Vector a, Vector b) { return a + b; });
    }
    Eight operator-(const Eight& other) const {
        return with(other, [](Vector a, Vector b) { return a - b; });
    }
    Eight operator*(const Eight& other) const {
        return with(other, [](Vector a, Vector b) { return a * b; });
    }
    Eight operator*(double factor) const {
        return with(*this, [factor](Vector a, Vector) { return a * factor; });
    }

 private:
    template <class Operation>
    Eight with(const Eight& other, Operation operation) const {
        Eight result;
        for (int k = 0; k < parts; ++k) result.part[k] = operation(part[k], other.part[k]);
        return result;
    }
};

// Calls body(i, load) for every eight columns i … i + 7; `load` fills up the last ones with zeros.
template <class Vector, class Body>
void for_columns(int64_t count, Body body) {
    using Columns = Eight<Vector>;
    int64_t i = 0;
    for (; i + score_lanes <= count; i += score_lanes) body(i, [](const double* from) { return Columns::load(from); });
    if (i < count) body(i, [left = count - i](const double* from) { return Columns::load(from, left); });
}

// Sums that go on from block to block, in memory between them.
template <class Vector, int count>
struct Running {
    explicit Running(double* at) : at_(at) {
        for (int k = 0; k < count; ++k) sum[k] = Eight<Vector>::load(at + k * score_lanes);
    }
    ~Running() {
        for (int k = 0; k < count; ++k) sum[k].store(at_ + k * score_lanes);
    }

    Eight<Vector> sum[count];

 private:
    double* at_;
};

double total(const double* eight) {
    return ((eight[0] + eight[4]) + (eight[2] + eight[6])) + ((eight[1] + eight[5]) + (eight[3] + eight[7]));
}

template <class Vector>
class ProbeScore {
    using Columns = Eight<Vector>;

 public:
    ProbeScore(const ScoreArgs& args, int64_t p, double* scratch)
        : args_(args), p_(p), g_(args.prior_count == 1 ? 0 : p), offsets_(args.offsets + p * args.candidate_count) {
        const int64_t c = args.candidate_count, n = args.point_count, references = offsets_[c] - offsets_[0];
        const auto take = [&scratch](int64_t numbers) { return scratch += numbers, scratch - numbers; };
        agreement_ = take(3 * score_lanes * references);
        squares_ = take(2 * score_lanes * c);
        by_candidate_ = take(3 * score_lanes * n * c);
        by_point_ = take(2 * score_lanes * n);
        std::memset(agreement_, 0, (scratch - agreement_) * sizeof(double));
        mean_ = take(score_block * c);
        content_ = take(score_block);
        base_ = take(score_block);
        next_ = take(score_block);
        for (int64_t k = 0; k < c; ++k) present_ += size(k) > 0;
    }

    void operator()() {
        for (int64_t first = 0; first < args_.dimension; first += score_block) {
            const int64_t left = args_.dimension - first;
            add_block(first, left < score_block ? left : score_block);
        }
        finish();
    }

 private:
    int64_t size(int64_t c) const { return offsets_[c + 1] - offsets_[c]; }
    const double* reference(int64_t k) const { return args_.references + args_.rows[k] * args_.dimension; }
    const double* point(int64_t j) const { return args_.points + (p_ * args_.point_count + j) * args_.dimension; }
    const double* expected(int64_t c) const {
        return args_.means ? args_.means + (g_ * args_.candidate_count + c) * args_.dimension : nullptr;
    }
    double weight(int64_t c) const { return args_.weights[g_ * args_.candidate_count + c]; }
    double spread(int64_t c) const { return args_.spreads[g_ * args_.candidate_count + c]; }
    bool advantage() const { return has_advantage(args_, g_); }

    void add_block(int64_t first, int64_t count) {
        for (int64_t c = 0; c < args_.candidate_count; ++c)
            if (size(c) > 0) add_references(c, first, count);
        place(first, count);
        for (int64_t j = 0; j < args_.point_count; ++j) add_point(j, first, count);
        for (int64_t c = 0; c < args_.candidate_count; ++c) add_candidate(c, first, count);
    }

    // A candidate's mean reference, and how each of its references lies to the others.
    void add_references(int64_t c, int64_t first, int64_t count) {
        const int64_t begin = offsets_[c], end = offsets_[c + 1], k = end - begin;
        const double share = 1.0 / static_cast<double>(k);
        double* const sum = next_;
        for_columns<Vector>(count, [&](int64_t i, auto load) {
            Columns columns{};
            for (int64_t r = begin; r < end; ++r) {
                const double* const at = reference(r) + first + i;
                __builtin_prefetch(at + score_block);  // an eighth faster where references come from memory
                columns = columns + load(at);
            }
            columns.store(sum + i);
        });
        for (int64_t r = begin; r < end && k > 1; ++r) {
            const double* const row = reference(r) + first;
            Running<Vector, 3> running(agreement_ + 3 * score_lanes * (r - offsets_[0]));
            for_columns<Vector>(count, [&](int64_t i, auto load) {
                const Columns own = load(row + i), others = Columns::load(sum + i) - own;
                running.sum[0] = running.sum[0] + others * own;
                running.sum[1] = running.sum[1] + others * others;
                running.sum[2] = running.sum[2] + own * own;
            });
        }
        double* const mean = mean_ + c * score_block;
        Running<Vector, 1> running(squares_ + 2 * score_lanes * c);
        for_columns<Vector>(count, [&](int64_t i, auto) {
            const Columns columns = Columns::load(sum + i) * share;
            running.sum[0] = running.sum[0] + columns * columns;
            columns.store(mean + i);
        });
    }

    // The content, and where it puts candidates of whom nothing is expected.
    void place(int64_t first, int64_t count) {
        const double share = 1.0 / static_cast<double>(args_.candidate_count),
                     part = 1.0 / static_cast<double>(present_);
        for_columns<Vector>(count, [&](int64_t i, auto load) {
            Columns content{}, expectation{};
            if (args_.content) {
                content = load(args_.content + p_ * args_.dimension + first + i);
            } else {
                for (int64_t c = 0; c < args_.candidate_count; ++c)
                    if (size(c) > 0) content = content + Columns::load(mean_ + c * score_block + i);
                content = content * part;
            }
            for (int64_t c = 0; c < args_.candidate_count && args_.means; ++c)
                expectation = expectation + load(expected(c) + first + i) * weight(c);
            content.store(content_ + i);
            (content - expectation * share).store(base_ + i);
        });
    }

    void add_point(int64_t j, int64_t first, int64_t count) {
        const double* const x = point(j) + first;
        Running<Vector, 2> running(by_point_ + 2 * score_lanes * j);
        for_columns<Vector>(count, [&](int64_t i, auto load) {
            const Columns own = load(x + i), about = own - Columns::load(content_ + i);
            running.sum[0] = running.sum[0] + own * own;
            running.sum[1] = running.sum[1] + about * about;
        });
    }

    void add_candidate(int64_t c, int64_t first, int64_t count) {
        const double *const mean = mean_ + c * score_block, *const means = expected(c);
        const double gain = gain_of(spread(c), size(c)), trust = weight(c);
        const bool any = size(c) > 0, centred = advantage();
        {
            Running<Vector, 1> running(squares_ + score_lanes * (2 * c + 1));
            for_columns<Vector>(count, [&](int64_t i, auto load) {
                const Columns base = Columns::load(base_ + i),
                              next = posterior(base, trust, means ? load(means + first + i) : Columns{}, gain,
                                               any ? Columns::load(mean + i) : base);
                next.store(next_ + i);
                if (!centred) return;
                const Columns towards = next - Columns::load(content_ + i);
                running.sum[0] = running.sum[0] + towards * towards;
            });
        }
        for (int64_t j = 0; j < args_.point_count; ++j) {
            const double* const x = point(j) + first;
            Running<Vector, 3> running(by_candidate_ + 3 * score_lanes * (j * args_.candidate_count + c));
            for_columns<Vector>(count, [&](int64_t i, auto load) {
                const Columns own = load(x + i), next = Columns::load(next_ + i), away = own - next;
                running.sum[0] = running.sum[0] + away * away;
                if (any) running.sum[1] = running.sum[1] + own * Columns::load(mean + i);
                if (!centred) return;
                const Columns content = Columns::load(content_ + i);
                running.sum[2] = running.sum[2] + (own - content) * (next - content);
            });
        }
    }

    void finish() {
        const ReferenceSums sums = reference_sums();
        const int64_t candidates = args_.candidate_count;
        for (int64_t j = 0; j < args_.point_count; ++j) {
            double* const scores = args_.scores + (p_ * args_.point_count + j) * candidates;
            const double *const about = by_point_ + 2 * score_lanes * j, xx = total(about);
            double cosine = -INFINITY, centred = -INFINITY;
            for (int64_t c = 0; c < candidates; ++c) {
                const double* const sum = by_candidate_ + 3 * score_lanes * (j * candidates + c);
                const double* const squares = squares_ + 2 * score_lanes * c;
                const double variance = 1.0 + spread(c) * (1.0 - gain_of(spread(c), size(c)));
                scores[c] = log_likelihood(total(sum), variance, args_.energy);
                if (size(c) > 0) cosine = higher(cosine, cosine_of(total(sum + score_lanes), xx, total(squares)));
                if (advantage())
                    centred = higher(centred, cosine_of(total(sum + 2 * score_lanes), total(about + score_lanes),
                                                        total(squares + score_lanes)));
            }
            double consistency = consistency_of(cosine, sums);
            if (advantage()) consistency += args_.advantage[g_] * centred;
            args_.consistency[p_ * args_.point_count + j] = consistency;
        }
    }

    ReferenceSums reference_sums() const {
        ReferenceSums sums{present_, 0, 0.0};
        for (int64_t c = 0; c < args_.candidate_count; ++c)
            for (int64_t r = offsets_[c]; r < offsets_[c + 1] && size(c) > 1; ++r, ++sums.compared) {
                const double* const sum = agreement_ + 3 * score_lanes * (r - offsets_[0]);
                sums.agreement += cosine_of(total(sum), total(sum + score_lanes), total(sum + 2 * score_lanes));
            }
        return sums;
    }

    const ScoreArgs& args_;
    const int64_t p_, g_, *const offsets_;
    int64_t present_ = 0;
    double *agreement_, *squares_, *by_candidate_, *by_point_;  // sums of eight columns each
    double *mean_, *content_, *base_, *next_;                   // of a block of columns
};

template <class Vector>
void score_probe(const ScoreArgs& args, int64_t p, double* scratch) {
    ProbeScore<Vector>(args, p, scratch)();
}

}  // namespace
}  // namespace resynth
