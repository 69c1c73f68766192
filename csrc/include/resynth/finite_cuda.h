// The CUDA form of faults(): same arguments, all pointers on the device.
#pragma once

#include <cuda_runtime.h>

#include "resynth/finite.h"

namespace resynth {

// Enqueues one kernel on `stream` and returns; allocates nothing and never synchronises, so a graph can capture it.
cudaError_t faults_cuda(const FaultsArgs& args, cudaStream_t stream);

}  // namespace resynth
