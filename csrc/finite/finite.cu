// Plain CUDA C++ without <<<>>>, so that tests can also compile it with the host compiler over an emulation header.
#include "finite/math.h"
#include "resynth/finite_cuda.h"
#include "resynth/launch.h"

namespace resynth {
namespace {

constexpr int threads = 256;  // per block
constexpr int unroll = 8;     // values per thread, a block's width apart

__global__ void faults_kernel(FaultsArgs args) {
    const int64_t first = static_cast<int64_t>(blockIdx.x) * threads * unroll + threadIdx.x;
    int found = 0;
    for (int k = 0; k < unroll; ++k)
        if (first + k * threads < args.size) found |= faulty(args.values[first + k * threads]);
    if (found) atomicAdd(args.found, 1);  // only threads with a non-finite value
}

}  // namespace

cudaError_t faults_cuda(const FaultsArgs& args, cudaStream_t stream) {
    return args.size ? launch(faults_kernel, blocks_for(args.size, threads * unroll), threads, stream, args)
                     : cudaSuccess;
}

}  // namespace resynth
