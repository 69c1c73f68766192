// The CUDA form of step(): same arguments, all pointers on the device, same bits.
#pragma once

#include <cuda_runtime.h>

#include "resynth/step.h"

namespace resynth {

// Enqueues one kernel on `stream` and returns; allocates nothing and never synchronises, so a graph can capture it.
// A weight whose array is absent counts as zero.
cudaError_t step_cuda(const StepArgs& args, cudaStream_t stream);

}  // namespace resynth
