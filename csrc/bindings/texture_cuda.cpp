#include "resynth/texture_cuda.h"

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include "bindings/bind.h"
#include "bindings/cuda_device.h"
#include "bindings/texture_args.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace resynth::bindings {
namespace {

template <class Scalar, int dimensions>
using Array = nb::ndarray<Scalar, nb::ndim<dimensions>, nb::c_contig, nb::device::cuda>;

void run(Array<const uint8_t, 4> pictures, Array<float, 2> features, Array<uint8_t, 1> workspace, uintptr_t stream) {
    const TextureArgs args = texture_args(pictures, features);
    check_workspace(workspace, texture_workspace_bytes(args.count, args.side));
    const int device = pictures.device_id();
    check_device("features", features, device, "pictures");
    check_device("workspace", workspace, device, "pictures");
    void* memory = workspace.data();
    nb::gil_scoped_release released;
    const DeviceGuard guard(device);
    check(texture_cuda(args, memory, reinterpret_cast<cudaStream_t>(stream)));
}

}  // namespace

void bind_texture_cuda(nb::module_& m) {
    m.def("texture_workspace_bytes", &texture_workspace_bytes, "count"_a, "side"_a,
          "Length of the workspace that texture needs for `count` pictures.");
    m.def("texture", &run, "pictures"_a.noconvert(), "features"_a.noconvert(), "workspace"_a.noconvert(),
          "stream"_a = 0,
          "Enqueues on `stream` (a cudaStream_t as an integer) the kernels that write features (n, d) of pictures (n, "
          "S, S, 3).\n\nAllocates nothing and never synchronises; workspace (bytes,) uint8 must stay untouched until "
          "then.");
}

}  // namespace resynth::bindings
