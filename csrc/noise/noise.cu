// Plain CUDA C++ without <<<>>>, so that tests can also compile it with the host compiler over an emulation header.
#include "noise/math.h"
#include "resynth/launch.h"
#include "resynth/noise_cuda.h"

namespace resynth {
namespace {

constexpr int threads = 128;  // per block; each computes the four normals of one counter

struct alignas(16) Four {  // stored in one transaction
    float normal[4];
};

__global__ void noise_kernel(NoiseArgs args, int64_t blocks_per_row) {
    const int64_t row = blockIdx.x / blocks_per_row;
    const int64_t counter = blockIdx.x % blocks_per_row * threads + threadIdx.x, first = 4 * counter;
    if (first >= args.elements) return;
    Four four;
    normals<OneLane>(args.seeds[row], args.calls[row], static_cast<uint32_t>(counter), four.normal);
    float* out = args.out + row * args.elements + first;
    if (first + 4 <= args.elements && reinterpret_cast<uintptr_t>(out) % alignof(Four) == 0)
        *reinterpret_cast<Four*>(out) = four;
    else
        for (int k = 0; k < 4 && first + k < args.elements; ++k) out[k] = four.normal[k];
}

}  // namespace

cudaError_t noise_cuda(const NoiseArgs& args, cudaStream_t stream) {
    const int64_t blocks_per_row = (args.elements + 4 * threads - 1) / (4 * threads);
    if (args.rows * blocks_per_row == 0) return cudaSuccess;
    return launch(noise_kernel, args.rows * blocks_per_row, threads, stream, args, blocks_per_row);
}

}  // namespace resynth
