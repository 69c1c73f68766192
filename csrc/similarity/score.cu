// Plain CUDA C++ without <<<>>>, so that tests can also compile it with the host compiler over an emulation header.
#include "resynth/score_cuda.h"
#include "similarity/score_math.h"

namespace resynth {
namespace {

constexpr int warp_size = 32;
constexpr int warps = 8;  // a block
constexpr int threads = warps * warp_size;
constexpr unsigned all_lanes = 0xffffffffu;

__device__ double warp_sum(double value) {
    for (int other = warp_size / 2; other > 0; other /= 2) value += __shfl_xor_sync(all_lanes, value, other);
    return value;  // the butterfly adds in the same order in every lane: all hold the same bits
}

__device__ double warp_highest(double value) {
    for (int other = warp_size / 2; other > 0; other /= 2)
        value = higher(value, __shfl_xor_sync(all_lanes, value, other));
    return value;
}

// The references of one probe and candidate; none where the offsets are out of range.
struct Group {
    int64_t begin, end;
    bool valid;

    __device__ int64_t size() const { return end - begin; }
};

__device__ Group group_of(const ScoreArgs& args, int64_t p, int64_t c) {
    const int64_t* const at = args.offsets + p * args.candidate_count + c;
    if (at[0] < 0 || at[1] < at[0] || at[1] > args.row_count) return {0, 0, false};
    return {at[0], at[1], true};
}

__device__ double reference_at(const ScoreArgs& args, int64_t k, int64_t i) {
    const int64_t row = args.rows[k];
    return row < 0 || row >= args.reference_count ? NAN : args.references[row * args.dimension + i];
}

// What the kernels hand on: a probe's mean references (C, d), content (d), base of the posteriors (d), cosines with
// them (n, C), and cosines with the posteriors, content removed (n, C).
struct Between {
    double *means, *content, *base, *cosines, *centred;
};

__host__ __device__ int64_t numbers_of_probe(int64_t points, int64_t candidates, int64_t dimension) {
    return (candidates + 2) * dimension + 2 * points * candidates;
}

__device__ Between between_of(const ScoreArgs& args, double* workspace, int64_t p) {
    const int64_t d = args.dimension, c = args.candidate_count;
    double* const means = workspace + p * numbers_of_probe(args.point_count, c, d);
    double* const cosines = means + (c + 2) * d;
    return {means, means + c * d, means + (c + 1) * d, cosines, cosines + args.point_count * c};
}

__device__ int64_t prior_of(const ScoreArgs& args, int64_t p) { return args.prior_count == 1 ? 0 : p; }

__device__ double expected_at(const ScoreArgs& args, int64_t p, int64_t c, int64_t i) {
    return args.means ? args.means[(prior_of(args, p) * args.candidate_count + c) * args.dimension + i] : 0.0;
}

// A thread a column: the mean references, the content, and where it puts candidates of whom nothing is expected.
__global__ void references_kernel(ScoreArgs args, double* workspace, int64_t blocks_of_probe) {
    const int64_t p = blockIdx.x / blocks_of_probe, i = blockIdx.x % blocks_of_probe * threads + threadIdx.x;
    if (i >= args.dimension) return;
    const Between between = between_of(args, workspace, p);
    const double* const weights = args.weights + prior_of(args, p) * args.candidate_count;
    double content = 0.0, expectation = 0.0;
    int64_t present = 0;
    for (int64_t c = 0; c < args.candidate_count; ++c) {
        const Group group = group_of(args, p, c);
        double sum = group.valid ? 0.0 : NAN;
        for (int64_t k = group.begin; k < group.end; ++k) sum += reference_at(args, k, i);
        const double mean = sum / static_cast<double>(group.size());  // NaN without references
        between.means[c * args.dimension + i] = mean;
        if (group.size() > 0) content += mean, ++present;
        if (!group.valid) content = NAN;
        expectation += expected_at(args, p, c, i) * weights[c];
    }
    content = args.content ? args.content[p * args.dimension + i] : content / static_cast<double>(present);
    between.content[i] = content;
    between.base[i] = content - expectation / static_cast<double>(args.candidate_count);
}

// The cosine of a reference with the sum of the others of its candidate.
__device__ double agreement_of(const ScoreArgs& args, const double* mean, int64_t count, int64_t k, int lane) {
    double dot = 0.0, xx = 0.0, yy = 0.0;
    for (int64_t i = lane; i < args.dimension; i += warp_size) {
        const double own = reference_at(args, k, i), others = mean[i] * static_cast<double>(count) - own;
        dot += others * own;
        xx += others * others;
        yy += own * own;
    }
    return cosine_of(warp_sum(dot), warp_sum(xx), warp_sum(yy));
}

// One warp's share of the references, in their order.
__device__ double agreement_of_warp(const ScoreArgs& args, const Between& between, int64_t p, int warp, int lane) {
    double sum = 0.0;
    for (int64_t c = 0; c < args.candidate_count; ++c) {
        const Group group = group_of(args, p, c);
        for (int64_t k = group.begin + warp; k < group.end && group.size() > 1; k += warps)
            sum += agreement_of(args, between.means + c * args.dimension, group.size(), k, lane);
    }
    return sum;
}

__device__ void judge(const ScoreArgs& args, const Between& between, int64_t p, int64_t j, int64_t c, int lane) {
    const int64_t d = args.dimension, at = (p * args.point_count + j) * args.candidate_count + c;
    const int64_t prior = prior_of(args, p) * args.candidate_count + c;
    const Group group = group_of(args, p, c);
    const double spread = args.spreads[prior], gain = gain_of(spread, group.size()), weight = args.weights[prior];
    const double *const x = args.points + (p * args.point_count + j) * d, *const mean = between.means + c * d;
    double distance = 0.0, dot = 0.0, xx = 0.0, yy = 0.0, towards = 0.0, about = 0.0, square = 0.0;
    for (int64_t i = lane; i < d; i += warp_size) {
        const double base = between.base[i], mean_i = group.size() > 0 ? mean[i] : base;
        const double next = posterior(base, weight, expected_at(args, p, c, i), gain, mean_i), away = x[i] - next;
        const double own = x[i] - between.content[i], centred = next - between.content[i];
        distance += away * away;
        towards += own * centred;
        about += own * own;
        square += centred * centred;
        dot += x[i] * mean_i;
        xx += x[i] * x[i];
        yy += mean_i * mean_i;
    }
    distance = warp_sum(distance), dot = warp_sum(dot), xx = warp_sum(xx), yy = warp_sum(yy);
    towards = warp_sum(towards), about = warp_sum(about), square = warp_sum(square);
    if (lane != 0) return;
    args.scores[at] = group.valid ? log_likelihood(distance, 1.0 + spread * (1.0 - gain), args.energy) : NAN;
    between.cosines[j * args.candidate_count + c] = group.size() > 0 ? cosine_of(dot, xx, yy) : -INFINITY;
    between.centred[j * args.candidate_count + c] = cosine_of(towards, about, square);
}

__device__ void judge_all(const ScoreArgs& args, const Between& between, const ReferenceSums& sums, int64_t p,
                          int64_t j, int lane) {
    double best = -INFINITY, cosine = -INFINITY, centred = -INFINITY;
    for (int64_t c = lane; c < args.candidate_count; c += warp_size) {
        best = higher(best, args.scores[(p * args.point_count + j) * args.candidate_count + c]);
        cosine = higher(cosine, between.cosines[j * args.candidate_count + c]);
        centred = higher(centred, between.centred[j * args.candidate_count + c]);
    }
    best = warp_highest(best), cosine = warp_highest(cosine), centred = warp_highest(centred);
    const int64_t prior = prior_of(args, p);
    double consistency = isnan(best) ? NAN : consistency_of(cosine, sums);
    if (has_advantage(args, prior)) consistency += args.advantage[prior] * centred;
    if (lane == 0) args.consistency[p * args.point_count + j] = consistency;
}

// A block a probe: its warps compare the references, judge the points by each candidate, then by all of them.
__global__ void points_kernel(ScoreArgs args, double* workspace) {
    __shared__ double agreement[warps];
    const int lane = threadIdx.x % warp_size, warp = threadIdx.x / warp_size;
    const int64_t p = blockIdx.x, candidates = args.candidate_count;
    const Between between = between_of(args, workspace, p);
    const double own = agreement_of_warp(args, between, p, warp, lane);
    if (lane == 0) agreement[warp] = own;
    for (int64_t item = warp; item < args.point_count * candidates; item += warps)
        judge(args, between, p, item / candidates, item % candidates, lane);
    __syncthreads();

    ReferenceSums sums{0, 0, 0.0};
    for (int w = 0; w < warps; ++w) sums.agreement += agreement[w];
    for (int64_t c = 0; c < candidates; ++c) {
        const int64_t size = group_of(args, p, c).size();
        sums.present += size > 0;
        sums.compared += size > 1 ? size : 0;
    }
    for (int64_t j = warp; j < args.point_count; j += warps) judge_all(args, between, sums, p, j, lane);
}

cudaLaunchConfig_t blocks_on(int64_t blocks, cudaStream_t stream) {
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(static_cast<unsigned>(blocks));
    config.blockDim = dim3(threads);
    config.stream = stream;
    return config;
}

}  // namespace

int64_t score_cuda_workspace(int64_t probes, int64_t points, int64_t candidates, int64_t dimension) {
    return probes * numbers_of_probe(points, candidates, dimension) * static_cast<int64_t>(sizeof(double));
}

cudaError_t score_cuda(const ScoreArgs& args, void* workspace, cudaStream_t stream) {
    double* const between = static_cast<double*>(workspace);
    const int64_t blocks_of_probe = (args.dimension + threads - 1) / threads;
    cudaLaunchConfig_t config = blocks_on(args.probe_count * blocks_of_probe, stream);
    const cudaError_t error = cudaLaunchKernelEx(&config, references_kernel, args, between, blocks_of_probe);
    if (error != cudaSuccess) return error;
    config = blocks_on(args.probe_count, stream);
    return cudaLaunchKernelEx(&config, points_kernel, args, between);
}

}  // namespace resynth
