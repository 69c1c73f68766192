// What CUDA sources share. Without <<<>>>, so that tests can also compile them with the host compiler over an
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

// Blocks for one thread an item.
inline int64_t blocks_for(int64_t items, int threads) { return (items + threads - 1) / threads; }

// Takes aligned pieces of a workspace; from null it only counts the bytes.
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
