#include "resynth/similarity.h"

#include <algorithm>

#include "dots/dots.h"
#include "similarity/math.h"

namespace resynth {
namespace {

constexpr int64_t rows_at_once = 64;  // their sums lie on the stack

Moments<double> moments_wide(const float* x, const float* y, int64_t dimension) {
    Moments<double> sum{0.0, 0.0};
    for (int64_t i = 0; i < dimension; ++i) {
        sum.dot += static_cast<double>(x[i]) * y[i];
        sum.yy += static_cast<double>(y[i]) * y[i];
    }
    return sum;
}

struct Probe {
    const float* x;  // (dimension)
    float xx;        // |x|², summed once for all references
    double xx_wide;  // the same where float can hold it, else summed in double
};

Probe prepare(const float* x, int64_t dimension, const DotKernels<float>& kernels) {
    float xx, dot;
    kernels.moments(x, x, 1, dimension, &dot, &xx, false);
    return {x, xx, is_exact(xx) ? xx : moments_wide(x, x, dimension).yy};
}

// Cosines of a block of references, NaN where float may have lost digits. Without branches, so that the compiler makes
// vectors of it.
void cosines(float xx, const float* dot, const float* yy, int64_t count, float* result) {
    const float known = is_exact(xx) ? xx : NAN;
    for (int64_t n = 0; n < count; ++n) {
        const float value = cosine(dot[n], known, yy[n]);
        result[n] = is_exact(yy[n]) ? value : NAN;
    }
}

float cosine_wide(const Probe& probe, const float* y, int64_t dimension) {
    const Moments<double> wide = moments_wide(probe.x, y, dimension);
    return cosine(wide.dot, probe.xx_wide, wide.yy);
}

}  // namespace

NonFinite similarity(const SimilarityArgs& args) {
    const DotKernels<float> kernels = choose_dots<float>();
    const int64_t d = args.dimension, *offset = args.offsets;
    float dot[rows_at_once], yy[rows_at_once], cosine[rows_at_once];
    for (int64_t p = 0; p < args.probe_count; ++p) {
        const Probe probe = prepare(args.probes + p * d, d, kernels);
        if (!isfinite(probe.xx_wide)) return {NonFinite::Where::probes, p};
        Leader leader = no_leader();
        // A probe's references lie together: blocks of them are read whatever their groups.
        const int64_t end = offset[args.candidate_count];
        int64_t begun = offset[0], known = begun;  // cosine holds the rows begun … known - 1
        for (int64_t c = 0; c < args.candidate_count; ++c, ++offset) {
            Reduction group = empty_group();
            for (int64_t n = offset[0]; n < offset[1]; ++n) {
                if (n == known) {
                    begun = known;
                    known = std::min(end, begun + rows_at_once);
                    kernels.moments(probe.x, args.references + begun * d, known - begun, d, dot, yy, false);
                    cosines(probe.xx, dot, yy, known - begun, cosine);
                }
                float similarity = cosine[n - begun];
                if (isnan(similarity)) similarity = cosine_wide(probe, args.references + n * d, d);
                if (isnan(similarity)) return {NonFinite::Where::references, n};
                fold(group, similarity, args.reduce);
            }
            const float score = score_of(group, args.reduce);
            args.scores[p * args.candidate_count + c] = score;
            leader = merge(leader, leader_of_one(c, score));
        }
        args.best[p] = leader.best;
        args.margin[p] = margin_of(leader);
    }
    return {NonFinite::Where::nowhere, -1};
}

}  // namespace resynth
