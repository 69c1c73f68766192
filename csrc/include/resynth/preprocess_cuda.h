// The CUDA forms of what preprocess.h has for bytes: same arguments, all pointers on the device.
#pragma once

#include <cuda_runtime.h>

#include "resynth/preprocess.h"

namespace resynth {

// Bytes of device memory that a call needs beside its arguments, aligned to 256.
int64_t resize_workspace_bytes(const ResizeArgs<uint8_t>& args);  // of either
int64_t jpeg_workspace_bytes(int64_t height, int64_t width);

// Each enqueues its kernels on `stream` and returns; they allocate nothing and never synchronise, so a graph can
// capture them. The workspace must stay untouched until they have run.
cudaError_t resize_cuda(const ResizeArgs<uint8_t>& args, void* workspace, uint8_t* out, cudaStream_t stream);
cudaError_t resize_to_unit_cuda(const ResizeArgs<uint8_t>& args, void* workspace, float* out, cudaStream_t stream);
cudaError_t levels_cuda(const LevelsArgs& args, cudaStream_t stream);
cudaError_t jpeg_round_trip_cuda(const uint8_t* pixels, int64_t height, int64_t width, int quality, void* workspace,
                                 uint8_t* out, cudaStream_t stream);

}  // namespace resynth
