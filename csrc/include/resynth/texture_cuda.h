// The CUDA form of texture(): same arguments, all pointers on the device.
#pragma once

#include <cuda_runtime.h>

#include "resynth/texture.h"

namespace resynth {

// Bytes of device memory that a call needs beside its arguments, aligned to 256.
int64_t texture_workspace_bytes(int64_t count, int64_t side);

// Enqueues its kernels on `stream` and returns; allocates nothing and never synchronises, so a graph can capture it.
// The workspace must stay untouched until they have run.
cudaError_t texture_cuda(const TextureArgs& args, void* workspace, cudaStream_t stream);

}  // namespace resynth
