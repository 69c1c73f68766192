// Plain CUDA C++ without <<<>>>, so that tests can also compile it with the host compiler over an emulation header.
#include "resynth/launch.h"
#include "resynth/similarity_cuda.h"
#include "similarity/math.h"

namespace resynth {
namespace {

constexpr int warp_size = 32;
constexpr int warps = 8;  // a block: each warp takes every eighth candidate of the block's probe
constexpr unsigned all_lanes = 0xffffffffu;

template <class Real>
__device__ Real warp_sum(Real value) {
    for (int other = warp_size / 2; other > 0; other /= 2) value += __shfl_xor_sync(all_lanes, value, other);
    return value;  // the butterfly adds in the same order in every lane: all hold the same bits
}

template <class Real>
__device__ Moments<Real> warp_moments(const float* x, const float* y, int64_t dimension, int lane) {
    Moments<Real> sum{0, 0};
    for (int64_t i = lane; i < dimension; i += warp_size) {
        const Real xi = x[i], yi = y[i];
        sum.dot += xi * yi;
        sum.yy += yi * yi;
    }
    return {warp_sum(sum.dot), warp_sum(sum.yy)};
}

struct Probe {
    const float* x;  // (dimension)
    float xx;        // |x|², summed once for all references
    double xx_wide;  // the same where float can hold it, else summed in double
};

__device__ Probe prepare(const float* x, int64_t dimension, int lane) {
    const float xx = warp_moments<float>(x, x, dimension, lane).yy;
    return {x, xx, is_exact(xx) ? xx : warp_moments<double>(x, x, dimension, lane).yy};
}

__device__ float warp_cosine(const Probe& probe, const float* y, int64_t dimension, int lane) {
    const auto m = warp_moments<float>(probe.x, y, dimension, lane);
    if (is_exact(probe.xx) && is_exact(m.yy)) return cosine(m.dot, probe.xx, m.yy);  // every lane branches alike
    const auto wide = warp_moments<double>(probe.x, y, dimension, lane);
    return cosine(wide.dot, probe.xx_wide, wide.yy);
}

__device__ Leader warp_leader(Leader mine) {
    for (int other = warp_size / 2; other > 0; other /= 2) {
        const Leader theirs{__shfl_xor_sync(all_lanes, mine.best, other), __shfl_xor_sync(all_lanes, mine.first, other),
                            __shfl_xor_sync(all_lanes, mine.second, other)};
        mine = merge(mine, theirs);
    }
    return mine;
}

__device__ float group_score(const SimilarityArgs& args, int64_t group, const Probe& probe, int lane) {
    const int64_t begin = args.offsets[group], end = args.offsets[group + 1];
    if (begin < 0 || end < begin || end > args.reference_count) return NAN;
    Reduction reduction = empty_group();
    for (int64_t n = begin; n < end; ++n)
        fold(reduction, warp_cosine(probe, args.references + n * args.dimension, args.dimension, lane), args.reduce);
    return score_of(reduction, args.reduce);
}

// One block a probe: its warps score the candidates, then the first warp ranks them.
__global__ void similarity_kernel(SimilarityArgs args) {
    const int lane = threadIdx.x % warp_size, warp = threadIdx.x / warp_size;
    const int64_t p = blockIdx.x, candidates = args.candidate_count;
    const Probe probe = prepare(args.probes + p * args.dimension, args.dimension, lane);
    float* scores = args.scores + p * candidates;

    for (int64_t c = warp; c < candidates; c += warps) {
        const float score = group_score(args, p * candidates + c, probe, lane);
        if (lane == 0) scores[c] = score;
    }
    __syncthreads();
    if (warp != 0) return;

    Leader leader = no_leader();
    float fault = isfinite(probe.xx_wide) ? 0.0f : NAN;  // NaN as soon as the probe or a score is not a number
    for (int64_t c = lane; c < candidates; c += warp_size) {
        const float score = scores[c];
        if (isnan(score)) fault = score;
        leader = merge(leader, leader_of_one(c, score));
    }
    leader = warp_leader(leader);
    fault = warp_sum(fault);
    if (lane == 0) {
        args.best[p] = isnan(fault) ? -1 : leader.best;
        args.margin[p] = isnan(fault) ? fault : margin_of(leader);
    }
}

}  // namespace

cudaError_t similarity_cuda(const SimilarityArgs& args, cudaStream_t stream) {
    return launch(similarity_kernel, args.probe_count, warps * warp_size, stream, args);
}

}  // namespace resynth
