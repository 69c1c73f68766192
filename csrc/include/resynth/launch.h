// Shared by the CUDA sources. They do without <<<>>>, so that tests can also compile them with the host compiler and an
// emulation header.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace resynth {

constexpr int64_t largest_grid = 2147483647;  // of a grid's first dimension

// A one-dimensional grid: `blocks` of `threads`.
template <class... Parameters, class... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), int64_t blocks, int threads, cudaStream_t stream,
                   const Arguments&... arguments) {
    if (blocks > largest_grid) return cudaErrorInvalidConfiguration;
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(static_cast<unsigned>(blocks));
    config.blockDim = dim3(static_cast<unsigned>(threads));
    config.stream = stream;
    return cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...);
}

// Number of blocks for one thread per item.
inline int64_t blocks_for(int64_t items, int threads) { return (items + threads - 1) / threads; }

// Allocates aligned arrays in a workspace. With a null workspace it only counts the bytes.
class Workspace {
 public:
    explicit Workspace(void* memory) : begin_(static_cast<char*>(memory)) {}

    template <class Number>
    Number* take(int64_t count) {
        Number* taken = begin_ ? reinterpret_cast<Number*>(begin_ + used_) : nullptr;
        used_ += (count * static_cast<int64_t>(sizeof(Number)) + 255) / 256 * 256;
        return taken;
    }

    int64_t used() const { return used_; }

 private:
    char* begin_;
    int64_t used_ = 0;
};

}  // namespace resynth
