// Stands in for the CUDA toolkit's header, so that the host compiler builds a .cu file as it is: one std::thread per
// CUDA thread, one block after another. Warps may diverge from each other; the lanes of one warp must not.
#pragma once

#include <array>
#include <atomic>
#include <barrier>
#include <cstring>
#include <deque>
#include <thread>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
    dim3() = default;
    explicit dim3(unsigned x, unsigned y = 1) : x(x), y(y) {}
};

using cudaStream_t = struct cudaStream*;
enum cudaError_t { cudaSuccess };
struct cudaLaunchConfig_t {
    dim3 gridDim, blockDim;
    size_t dynamicSmemBytes;
    cudaStream_t stream;
};

inline thread_local dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulation {

constexpr unsigned warp_size = 32;

struct Warp {
    std::barrier<> barrier{warp_size};
    std::array<char[8], warp_size> lanes;
};

inline thread_local std::barrier<>* block_barrier;
inline thread_local Warp* warp;

}  // namespace emulation

inline void __syncthreads() { emulation::block_barrier->arrive_and_wait(); }

template <class Number>
Number atomicAdd(Number* at, Number added) {
    return std::atomic_ref<Number>(*at).fetch_add(added);
}

inline void __syncwarp() { emulation::warp->barrier.arrive_and_wait(); }

template <class Value>
Value __shfl_sync(unsigned, Value value, int source) {
    static_assert(sizeof(Value) <= 8);
    auto& [barrier, lanes] = *emulation::warp;
    std::memcpy(lanes[threadIdx.x % emulation::warp_size], &value, sizeof value);
    barrier.arrive_and_wait();
    std::memcpy(&value, lanes[source], sizeof value);
    barrier.arrive_and_wait();
    return value;
}

template <class Value>
Value __shfl_xor_sync(unsigned mask, Value value, int lane_mask) {
    return __shfl_sync(mask, value, static_cast<int>(threadIdx.x % emulation::warp_size) ^ lane_mask);
}

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               const Arguments&... arguments) {
    for (unsigned block = 0; block < config->gridDim.x * config->gridDim.y; ++block) {
        std::barrier<> barrier(config->blockDim.x);
        std::deque<emulation::Warp> warps(config->blockDim.x / emulation::warp_size);
        std::vector<std::jthread> threads;
        for (unsigned thread = 0; thread < config->blockDim.x; ++thread) {
            threads.emplace_back([&, block, thread] {
                threadIdx.x = thread;
                blockIdx.x = block % config->gridDim.x;
                blockIdx.y = block / config->gridDim.x;
                blockDim = config->blockDim;
                gridDim = config->gridDim;
                emulation::block_barrier = &barrier;
                emulation::warp = &warps[thread / emulation::warp_size];
                kernel(arguments...);
            });
        }
    }
    return cudaSuccess;
}
