// Kernels that a GPU would refuse or that it would run to an undefined result: each check of the emulation header has
// to notice one of them.
#include "resynth/launch.h"

namespace {

constexpr int threads = 64;

struct alignas(16) Four {
    float at[4];
};

// A template, as most of our kernels with shared memory are.
template <class Number>
__device__ Number left_by_the_last_block(Number now) {
    __shared__ Number kept[threads];
    const Number before = kept[threadIdx.x];
    kept[threadIdx.x] = now;
    return before;
}

__global__ void stale_kernel(float* floats, int* integers) {
    __shared__ int kept;
    if (threadIdx.x == 0) integers[blockIdx.x] = kept;
    floats[blockIdx.x * threads + threadIdx.x] = left_by_the_last_block(1.0f);
    if (threadIdx.x == 0) kept = 1;
}

__global__ void load_kernel(const float* from, float* to) { *to = reinterpret_cast<const Four*>(from)->at[3]; }

__global__ void store_kernel(float* to) { *reinterpret_cast<Four*>(to) = Four{}; }

__global__ void nothing_kernel() {}

__global__ void reversed_kernel(int* out, bool synchronised) {
    __shared__ int values[threads];
    values[threadIdx.x] = static_cast<int>(threadIdx.x);
    if (synchronised) __syncthreads();
    out[threadIdx.x] = values[threads - 1 - threadIdx.x];
}

// What a lane stores for another is ordered by a barrier of the warp, not by a shuffle.
__global__ void shuffled_kernel(int* out) {
    __shared__ int value;
    if (threadIdx.x == 0) value = 7;
    __shfl_sync(0xffffffffu, 0, 0);
    if (threadIdx.x == 1) *out = value;
}

__global__ void parted_kernel() {
    if (threadIdx.x == 0)
        __syncwarp();  // of 32 lanes, of which 31 wait for this one
    else
        __syncthreads();
}

}  // namespace

extern "C" int64_t stale(float* floats, int* integers) {
    return resynth::launch(stale_kernel, 2, threads, nullptr, floats, integers);
}

extern "C" int64_t load(const float* from, float* to) { return resynth::launch(load_kernel, 1, 1, nullptr, from, to); }

extern "C" int64_t store(float* to) { return resynth::launch(store_kernel, 1, 1, nullptr, to); }

extern "C" int64_t of_size(int64_t x, int64_t y, int64_t z, int64_t block_x, int64_t block_y, int64_t block_z,
                           int64_t shared_bytes) {
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(static_cast<unsigned>(x), static_cast<unsigned>(y), static_cast<unsigned>(z));
    config.blockDim =
        dim3(static_cast<unsigned>(block_x), static_cast<unsigned>(block_y), static_cast<unsigned>(block_z));
    config.dynamicSmemBytes = static_cast<size_t>(shared_bytes);
    return cudaLaunchKernelEx(&config, nothing_kernel);
}

extern "C" int64_t blocks(int64_t count) { return resynth::launch(nothing_kernel, count, 1, nullptr); }

extern "C" int64_t reversed(int* out, int64_t synchronised) {
    return resynth::launch(reversed_kernel, 1, threads, nullptr, out, synchronised != 0);
}

extern "C" int64_t shuffled(int* out) { return resynth::launch(shuffled_kernel, 1, 32, nullptr, out); }

extern "C" int64_t parted() { return resynth::launch(parted_kernel, 1, threads, nullptr); }
