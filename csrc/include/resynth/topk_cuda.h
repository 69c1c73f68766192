// The CUDA form of topk(): same arguments, all pointers on the device.
#pragma once

#include <cuda_runtime.h>

#include "resynth/topk.h"

namespace resynth {

constexpr int64_t topk_cuda_largest_k = 128;

// Bytes of device memory, aligned to 256, that a call needs for its intermediate results.
int64_t topk_cuda_workspace(int64_t query_count, int64_t row_count, int64_t group_count, int64_t k);

// Enqueues two kernels on `stream` and returns; allocates nothing and never synchronises, so a graph can capture it.
// k must not exceed topk_cuda_largest_k. A group that is not below group_count is left out like a negative one.
//
// It cannot report faults by value: where a query's score with any row of a group is not finite, all scores of that
// query and group are NaN and their indices -1.
cudaError_t topk_cuda(const TopKArgs& args, void* workspace, cudaStream_t stream);

}  // namespace resynth
