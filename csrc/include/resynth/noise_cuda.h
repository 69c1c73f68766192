// The CUDA form of noise(): same arguments, all pointers on the device, same bits.
#pragma once

#include <cuda_runtime.h>

#include "resynth/noise.h"

namespace resynth {

// Enqueues one kernel on `stream` and returns; allocates nothing and never synchronises, so a graph can capture it.
cudaError_t noise_cuda(const NoiseArgs& args, cudaStream_t stream);

}  // namespace resynth
