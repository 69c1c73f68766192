#include <cuda_runtime.h>
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>

#include <string>

#include "bindings/bind.h"

namespace nb = nanobind;

namespace {

int device_count() {
    int count = 0;
    if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
    cudaGetLastError();  // clears "no device", so that no later call reports it
    return 0;
}

std::string status() {
    int count = 0;
    const cudaError_t error = cudaGetDeviceCount(&count);
    cudaGetLastError();
    return cudaGetErrorString(error);
}

}  // namespace

NB_MODULE(_cuda, m) {
    m.doc() = "CUDA kernels over DLPack arrays. Imports with and without a GPU.";

    m.def("device_count", &device_count, "CUDA devices that can be used; 0 without a driver.");
    m.def("status", &status, "What the CUDA runtime says about this machine: 'no error', or why there is no device.");

    resynth::bindings::bind_finite_cuda(m);
    resynth::bindings::bind_noise_cuda(m);
    resynth::bindings::bind_preprocess_cuda(m);
    resynth::bindings::bind_score_cuda(m);
    resynth::bindings::bind_similarity_cuda(m);
    resynth::bindings::bind_step_cuda(m);
    resynth::bindings::bind_texture_cuda(m);
    resynth::bindings::bind_topk_cuda(m);
}
