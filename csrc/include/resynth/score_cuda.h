// The CUDA form of score(): same arguments, all pointers on the device.
#pragma once

#include <cuda_runtime.h>

#include "resynth/score.h"

namespace resynth {

// Bytes of device memory for so many probes, points of each, candidates and columns.
int64_t score_cuda_workspace(int64_t probes, int64_t points, int64_t candidates, int64_t dimension);

// Enqueues two kernels on `stream` and returns; allocates nothing and never synchronises, so a graph can capture it.
//
// It therefore cannot report faults by value: rows or offsets out of range, and a probe with neither references nor
// `content`, give NaN.
cudaError_t score_cuda(const ScoreArgs& args, void* workspace, cudaStream_t stream);

}  // namespace resynth
