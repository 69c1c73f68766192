// Plain CUDA C++ without <<<>>>, so that tests can also compile it with the host compiler over an emulation header.
#include <math.h>

#include "resynth/launch.h"
#include "resynth/topk_cuda.h"
#include "topk/math.h"

namespace resynth {
namespace {

constexpr int warp_size = 32;
constexpr int warps = 8;  // per block
constexpr unsigned all_lanes = 0xffffffffu;
constexpr int64_t most_slices = 512;   // of the gallery for one query and group: about four a multiprocessor
constexpr int64_t most_blocks = 4096;  // in all, which bounds the workspace

template <class Real>
__device__ Real warp_sum(Real sum) {
    for (int other = warp_size / 2; other > 0; other /= 2) sum += __shfl_xor_sync(all_lanes, sum, other);
    return sum;  // the butterfly adds in the same order in every lane: all hold the same bits
}

// Loads 16 bytes of a row at a time if the rows are aligned for it.
template <class Row>
struct alignas(16) Vector {
    static constexpr int size = 16 / sizeof(Row);
    Row at[size];
};

template <class Real, class Row>
__device__ Real warp_dot(const float* x, const Row* y, int64_t columns, int lane) {
    constexpr int size = Vector<Row>::size;
    const bool aligned = reinterpret_cast<uintptr_t>(y) % 16 == 0;
    const int64_t vectors = aligned ? columns / size : 0;
    Real sum = 0;
    const auto add = [&](float xi, float yi) { sum += static_cast<Real>(xi) * yi; };
#pragma unroll 4
    for (int64_t v = lane; v < vectors; v += warp_size) {
        const Vector<Row> loaded = reinterpret_cast<const Vector<Row>*>(y)[v];
        for (int k = 0; k < size; ++k) add(x[v * size + k], value(loaded.at[k]));
    }
    for (int64_t i = vectors * size + lane; i < columns; i += warp_size) add(x[i], value(y[i]));
    return sum;
}

// The score of query q and row n; all lanes hold the same.
template <class Real, class Row>
__device__ Real warp_score(const TopKArgs& args, int64_t q, int64_t n, int lane) {
    const float* x = args.queries + q * args.dimension;
    Real sum = 0;
    for (int64_t b = 0; b < args.block_count; ++b) {
        const int64_t columns = args.blocks[b].columns;
        sum += warp_dot<Real>(x, static_cast<const Row*>(args.blocks[b].rows) + n * columns, columns, lane);
        x += columns;
    }
    return score_of(args, q, n, warp_sum(sum));
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
    // Moves all entries after the new one by one place, from the end, 32 entries at a time.
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
    float* scores;     // (Q, G, slices, k)
    int64_t* indices;  // (Q, G, slices, k)
    int64_t slices;
};

__device__ bool counts(const TopKArgs& args, int64_t n, int64_t group) {
    return args.groups ? args.groups[n] == group : true;
}

// One block for each query, group and slice finds the k best of every slices-th run of `warps` rows. If a score is not
// finite, all become NaN with index -2.
template <class Row>
__global__ void best_of_slice(TopKArgs args, Partial partial) {
    __shared__ float scores[warps][topk_cuda_largest_k];
    __shared__ int64_t indices[warps][topk_cuda_largest_k];
    const int lane = threadIdx.x % warp_size, warp = threadIdx.x / warp_size, k = static_cast<int>(args.k);
    const int64_t slice = blockIdx.x % partial.slices, list_of = blockIdx.x / partial.slices;
    const int64_t q = list_of / args.group_count, group = list_of % args.group_count;

    List list{scores[warp], indices[warp], k};
    list.clear(lane);
    bool fault = false;
    for (int64_t n = slice * warps + warp; n < args.row_count; n += partial.slices * warps) {
        if (!counts(args, n, group)) continue;  // every lane branches alike, here and below
        float score = warp_score<float, Row>(args, q, n, lane);
        if (!isfinite(score)) score = static_cast<float>(warp_score<double, Row>(args, q, n, lane));
        if (!isfinite(score))
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
    const int64_t at = static_cast<int64_t>(blockIdx.x) * k;
    for (int i = lane; i < k; i += warp_size) {
        partial.scores[at + i] = fault ? NAN : list.scores[i];
        partial.indices[at + i] = fault ? -2 : list.indices[i];
    }
}

// One warp for each query and group finds the k best of all slices. Its lanes compare 32 lists at a time.
__global__ void best_of_all(TopKArgs args, Partial partial) {
    __shared__ float scores[topk_cuda_largest_k];
    __shared__ int64_t indices[topk_cuda_largest_k];
    const int lane = threadIdx.x, k = static_cast<int>(args.k);
    const int64_t start = blockIdx.x * partial.slices * k, out = static_cast<int64_t>(blockIdx.x) * k;
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
        args.scores[out + i] = fault ? NAN : list.scores[i];
        args.indices[out + i] = fault ? -1 : list.indices[i];
    }
}

int64_t slices_of(int64_t lists, int64_t row_count) {
    const int64_t runs = blocks_for(row_count, warps), allowed = most_blocks / lists;
    const int64_t most = allowed < 1 ? 1 : allowed < most_slices ? allowed : most_slices;
    return runs < 1 ? 1 : runs < most ? runs : most;
}

// With a null workspace it only counts the bytes.
Partial partial_of(Workspace& memory, int64_t lists, int64_t row_count, int64_t k) {
    const int64_t slices = slices_of(lists, row_count);
    return {memory.take<float>(lists * slices * k), memory.take<int64_t>(lists * slices * k), slices};
}

}  // namespace

int64_t topk_cuda_workspace(int64_t query_count, int64_t row_count, int64_t group_count, int64_t k) {
    Workspace counted(nullptr);
    partial_of(counted, query_count * group_count, row_count, k);
    return counted.used();
}

cudaError_t topk_cuda(const TopKArgs& args, void* workspace, cudaStream_t stream) {
    if (args.k == 0) return cudaSuccess;
    const int64_t lists = args.query_count * args.group_count;
    Workspace memory(workspace);
    const Partial partial = partial_of(memory, lists, args.row_count, args.k);
    const auto kernel = args.storage == Storage::float16 ? best_of_slice<Half> : best_of_slice<float>;
    const cudaError_t error = launch(kernel, lists * partial.slices, warps * warp_size, stream, args, partial);
    return error != cudaSuccess ? error : launch(best_of_all, lists, warp_size, stream, args, partial);
}

}  // namespace resynth
