#include <cuda_runtime.h>
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include <string>

#include "bindings/bind.h"
#include "bindings/check.h"
#include "bindings/cuda_device.h"
#include "bindings/pixels.h"
#include "bindings/topk.h"
#include "resynth/similarity_cuda.h"

namespace nb = nanobind;
using namespace nb::literals;
using resynth::bindings::check;
using resynth::bindings::check_device;
using resynth::bindings::DeviceGuard;

namespace {

template <class Scalar, int dimensions>
using Array = nb::ndarray<Scalar, nb::ndim<dimensions>, nb::c_contig, nb::device::cuda>;

int device_count() {
    int count = 0;
    if (cudaGetDeviceCount(&count) == cudaSuccess) return count;
    cudaGetLastError();  // "no device" must not surface as the error of some later call
    return 0;
}

std::string status() {
    int count = 0;
    const cudaError_t error = cudaGetDeviceCount(&count);
    cudaGetLastError();
    return cudaGetErrorString(error);
}

void similarity(Array<const float, 2> probes, Array<const float, 2> references, Array<const int64_t, 1> offsets,
                nb::str reduce, Array<float, 2> scores, Array<int64_t, 1> best, Array<float, 1> margin,
                uintptr_t stream) {
    const auto args = resynth::bindings::similarity_args(probes, references, offsets, reduce, scores, best, margin);
    const int device = probes.device_id();
    check_device("references", references, device, "probes");
    check_device("offsets", offsets, device, "probes");
    check_device("scores", scores, device, "probes");
    check_device("best", best, device, "probes");
    check_device("margin", margin, device, "probes");
    nb::gil_scoped_release released;
    const DeviceGuard guard(device);
    check(resynth::similarity_cuda(args, reinterpret_cast<cudaStream_t>(stream)));
}

}  // namespace

NB_MODULE(_cuda, m) {
    m.doc() = "CUDA kernels over DLPack arrays. Imports with and without a GPU.";

    m.def("device_count", &device_count, "CUDA devices that can be used; 0 without a driver.");
    m.def("status", &status, "What the CUDA runtime says about this machine: 'no error', or why there is no device.");

    m.def(
        "similarity", &similarity, "probes"_a.noconvert(), "references"_a.noconvert(), "offsets"_a.noconvert(),
        "reduce"_a, "scores"_a.noconvert(), "best"_a.noconvert(), "margin"_a.noconvert(), "stream"_a = 0,
        "Enqueues on `stream` (a cudaStream_t as an integer) the kernel that writes scores (P, C), best (P,) and "
        "margin (P,).\n\nNever synchronises: a group with a non-finite row or with invalid offsets scores NaN, and its "
        "probe gets best -1 and margin NaN.");

    resynth::bindings::bind_finite_cuda(m);
    resynth::bindings::bind_noise_cuda(m);
    resynth::bindings::bind_step_cuda(m);
    resynth::bindings::bind_preprocess_cuda(m);
    resynth::bindings::bind_score_cuda(m);
    resynth::bindings::bind_texture_cuda(m);
    resynth::bindings::bind_topk_cuda(m);
}
