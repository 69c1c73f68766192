// The CUDA form of similarity(): same arguments, all pointers on the device.
#pragma once

#include <cuda_runtime.h>

#include "resynth/similarity.h"

namespace resynth {

// Enqueues one kernel on `stream` and returns; allocates nothing and never synchronises, so a graph can capture it.
//
// It therefore cannot report faults by value: a group with a non-finite row, or with offsets outside 0 <= begin <= end
// <= N, scores NaN, and a probe with such a group gets best = -1 and margin = NaN.
cudaError_t similarity_cuda(const SimilarityArgs& args, cudaStream_t stream);

}  // namespace resynth
