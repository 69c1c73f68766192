// Plain CUDA C++ without <<<>>>, so that tests can also compile it with the host compiler over an emulation header.
#include "resynth/topk_cuda.h"
#include "similarity/math.h"
#include "topk/math.h"

namespace resynth {
namespace {

constexpr int warp_size = 32;
constexpr int warps = 8;  // a block
constexpr unsigned all_lanes = 0xffffffffu;
constexpr int64_t most_slices =
    512;  // of the gallery, a block each: about four for every multiprocessor of a large GPU

struct Half {  // bfloat16
    uint16_t bits;
};

__device__ float value(float stored) { return stored; }
__device__ float value(Half stored) {
    union {
        uint32_t bits;
        float number;
    } whole = {static_cast<uint32_t>(stored.bits) << 16};
    return whole.number;
}

template <class Real>
__device__ Real warp_sum(Real sum) {
    for (int other = warp_size / 2; other > 0; other /= 2) sum += __shfl_xor_sync(all_lanes, sum, other);
    return sum;  // the butterfly adds in the same order in every lane: all hold the same bits
}

// Sixteen bytes of a row a load, where the rows allow it.
template <class Row>
struct alignas(16) Vector {
    static constexpr int size = 16 / sizeof(Row);
    Row at[size];
};

template <class Real, class Row>
__device__ Moments<Real> warp_moments(const float* x, const Row* y, int64_t d, bool aligned, int lane) {
    constexpr int size = Vector<Row>::size;
    Moments<Real> sum{0, 0};
    const auto add = [&](float xi, float yi) {
        sum.dot += static_cast<Real>(xi) * yi;
        sum.yy += static_cast<Real>(yi) * yi;
    };
    const int64_t vectors = aligned ? d / size : 0;
#pragma unroll 4
    for (int64_t v = lane; v < vectors; v += warp_size) {
        const Vector<Row> loaded = reinterpret_cast<const Vector<Row>*>(y)[v];
        for (int k = 0; k < size; ++k) add(x[v * size + k], value(loaded.at[k]));
    }
    for (int64_t i = vectors * size + lane; i < d; i += warp_size) add(x[i], value(y[i]));
    return {warp_sum(sum.dot), warp_sum(sum.yy)};
}

// NaN where the score is not finite.
template <class Row>
__device__ float warp_score(const TopKArgs& args, const float* x, float xx, const Row* y, bool aligned, int lane) {
    const auto m = warp_moments<float>(x, y, args.dimension, aligned, lane);
    float score = m.dot;
    if (args.metric == Metric::cosine) {
        if (is_exact(xx) && is_exact(m.yy)) return cosine(m.dot, xx, m.yy);  // every lane branches alike
        const double xx_wide = warp_moments<double>(x, x, args.dimension, false, lane).yy;
        const auto wide = warp_moments<double>(x, y, args.dimension, aligned, lane);
        return cosine(wide.dot, xx_wide, wide.yy);
    }
    if (!isfinite(score)) score = static_cast<float>(warp_moments<double>(x, y, args.dimension, aligned, lane).dot);
    return isfinite(score) ? score : NAN;
}

// The k best so far, in order; all lanes of one warp work on it together.
struct List {
    float* scores;     // (k)
    int64_t* indices;  // (k), -1 where nothing is yet
    int k;

    __device__ void clear(int lane) {
        for (int i = lane; i < k; i += warp_size) scores[i] = -INFINITY, indices[i] = -1;
        __syncwarp();
    }
    __device__ bool takes(float score, int64_t index) const {
        return indices[k - 1] < 0 || ranks_before(score, index, scores[k - 1], indices[k - 1]);
    }
    // Everything behind the new entry moves by one, from the end on, 32 entries at a time.
    __device__ void insert(float score, int64_t index, int lane) {
        for (int end = (k + warp_size - 1) / warp_size * warp_size; end > 0; end -= warp_size) {
            const int at = end - warp_size + lane;
            const bool behind = at < k && (indices[at] < 0 || ranks_before(score, index, scores[at], indices[at]));
            const bool first =
                behind &&
                (at == 0 || !(indices[at - 1] < 0 || ranks_before(score, index, scores[at - 1], indices[at - 1])));
            float moved = score;
            int64_t moved_index = index;
            if (behind && !first) moved = scores[at - 1], moved_index = indices[at - 1];
            __syncwarp();
            if (behind) scores[at] = moved, indices[at] = moved_index;
            __syncwarp();
        }
    }
};

struct Partial {
    float* scores;     // (Q, slices, k)
    int64_t* indices;  // (Q, slices, k)
    int64_t slices;
};

// Block (s, q): the k best of every slices-th group of rows for query q. A NaN score takes the first place, index -2.
template <class Row>
__global__ void best_of_slice(TopKArgs args, Partial partial) {
    __shared__ float scores[warps][topk_cuda_largest_k];
    __shared__ int64_t indices[warps][topk_cuda_largest_k];
    const int lane = threadIdx.x % warp_size, warp = threadIdx.x / warp_size, k = static_cast<int>(args.k);
    const int64_t q = blockIdx.y, d = args.dimension;
    const float* x = args.queries + q * d;
    const Row* gallery = static_cast<const Row*>(args.gallery);
    const bool aligned = reinterpret_cast<uintptr_t>(gallery) % 16 == 0 && d * sizeof(Row) % 16 == 0;
    const float xx = args.metric == Metric::cosine ? warp_moments<float>(x, x, d, false, lane).yy : 1.0f;

    List list{scores[warp], indices[warp], k};
    list.clear(lane);
    bool fault = false;
    for (int64_t n = blockIdx.x * int64_t{warps} + warp; n < args.row_count; n += partial.slices * warps) {
        const float score = warp_score(args, x, xx, gallery + n * d, aligned, lane);
        if (isnan(score))
            fault = true;
        else if (list.takes(score, n))
            list.insert(score, n, lane);
    }
    __syncwarp();
    if (fault && lane == 0) list.scores[0] = NAN, list.indices[0] = -2;
    __syncthreads();
    if (warp != 0) return;
    for (int other = 1; other < warps; ++other) {
        fault = fault || indices[other][0] == -2;
        for (int i = 0; i < k && !fault && indices[other][i] >= 0 && list.takes(scores[other][i], indices[other][i]);
             ++i)
            list.insert(scores[other][i], indices[other][i], lane);
    }
    const int64_t at = (q * partial.slices + blockIdx.x) * k;
    for (int i = lane; i < k; i += warp_size) {
        partial.scores[at + i] = fault ? NAN : list.scores[i];
        partial.indices[at + i] = fault ? -2 : list.indices[i];
    }
}

// One warp a query: the k best of all slices. The lanes look at 32 lists at a time.
__global__ void best_of_all(TopKArgs args, Partial partial) {
    __shared__ float scores[topk_cuda_largest_k];
    __shared__ int64_t indices[topk_cuda_largest_k];
    const int lane = threadIdx.x, k = static_cast<int>(args.k);
    const int64_t q = blockIdx.x, start = q * partial.slices * k;
    List list{scores, indices, k};
    list.clear(lane);
    int fault = 0;
    for (int64_t base = 0; base < partial.slices; base += warp_size) {
        const int64_t mine = start + (base + lane) * k;
        const bool exists = base + lane < partial.slices;
        const float head = exists ? partial.scores[mine] : 0.0f;
        const int64_t head_index = exists ? partial.indices[mine] : -1;
        fault |= head_index == -2;
        for (int other = 0; other < warp_size; ++other) {
            float score = __shfl_sync(all_lanes, head, other);
            int64_t index = __shfl_sync(all_lanes, head_index, other);
            const int64_t at = start + (base + other) * k;
            for (int i = 0; i < k && index >= 0 && list.takes(score, index); ++i) {
                list.insert(score, index, lane);
                if (i + 1 < k) score = partial.scores[at + i + 1], index = partial.indices[at + i + 1];
            }
        }
    }
    fault = warp_sum(fault);
    for (int i = lane; i < k; i += warp_size) {
        args.scores[q * k + i] = fault ? NAN : list.scores[i];
        args.indices[q * k + i] = fault ? -1 : list.indices[i];
    }
}

int64_t slices_of(int64_t row_count) {
    const int64_t groups = (row_count + warps - 1) / warps;
    return groups < 1 ? 1 : groups < most_slices ? groups : most_slices;
}

template <class Kernel, class... Arguments>
cudaError_t launch(Kernel kernel, dim3 grid, unsigned threads, cudaStream_t stream, const Arguments&... arguments) {
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = dim3(threads);
    config.stream = stream;
    return cudaLaunchKernelEx(&config, kernel, arguments...);
}

}  // namespace

int64_t topk_cuda_workspace(int64_t query_count, int64_t row_count, int64_t k) {
    return query_count * slices_of(row_count) * k * static_cast<int64_t>(sizeof(float) + sizeof(int64_t));
}

cudaError_t topk_cuda(const TopKArgs& args, void* workspace, cudaStream_t stream) {
    if (args.k == 0) return cudaSuccess;
    const int64_t slices = slices_of(args.row_count);
    int64_t* indices = static_cast<int64_t*>(workspace);  // first: they need the wider alignment
    const Partial partial{reinterpret_cast<float*>(indices + args.query_count * slices * args.k), indices, slices};
    const auto kernel = args.storage == Storage::bfloat16 ? best_of_slice<Half> : best_of_slice<float>;
    const dim3 grid(static_cast<unsigned>(slices), static_cast<unsigned>(args.query_count));
    const cudaError_t error = launch(kernel, grid, warps * warp_size, stream, args, partial);
    if (error != cudaSuccess) return error;
    return launch(best_of_all, dim3(static_cast<unsigned>(args.query_count)), warp_size, stream, args, partial);
}

}  // namespace resynth
