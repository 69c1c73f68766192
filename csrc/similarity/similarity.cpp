#include "resynth/similarity.h"

#include "dispatch.h"
#include "similarity/moments.h"

namespace resynth {
namespace {

// No AVX-512 form: measured on a Xeon, it equalled AVX2 on rows aligned to 64 bytes and was 15 % slower on others, as
// NumPy's mostly are: then every one of its loads crosses a cache line.
constexpr Variants<MomentsKernel> variants{.serial = moments_serial, .avx2 = RESYNTH_ON_X86(moments_avx2)};

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

Probe prepare(const float* x, int64_t dimension, MomentsKernel moments) {
    const float xx = moments(x, x, dimension).yy;
    return {x, xx, is_exact(xx) ? xx : moments_wide(x, x, dimension).yy};
}

float cosine_of(const Probe& probe, const float* y, int64_t dimension, MomentsKernel moments) {
    const Moments<float> m = moments(probe.x, y, dimension);
    if (is_exact(probe.xx) && is_exact(m.yy)) return cosine(m.dot, probe.xx, m.yy);
    const Moments<double> wide = moments_wide(probe.x, y, dimension);
    return cosine(wide.dot, probe.xx_wide, wide.yy);
}

}  // namespace

NonFinite similarity(const SimilarityArgs& args) {
    const MomentsKernel moments = variants.choose();
    const int64_t *offset = args.offsets, d = args.dimension;
    for (int64_t p = 0; p < args.probe_count; ++p) {
        const Probe probe = prepare(args.probes + p * d, d, moments);
        if (!isfinite(probe.xx_wide)) return {NonFinite::Where::probes, p};
        Leader leader = no_leader();
        for (int64_t c = 0; c < args.candidate_count; ++c, ++offset) {
            Reduction group = empty_group();
            for (int64_t n = offset[0]; n < offset[1]; ++n) {
                const float similarity = cosine_of(probe, args.references + n * d, d, moments);
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
