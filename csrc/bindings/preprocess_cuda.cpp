#include "resynth/preprocess_cuda.h"

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include "bindings/bind.h"
#include "bindings/cuda_device.h"
#include "bindings/preprocess_args.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace resynth::bindings {
namespace {

template <class Scalar, int dimensions>
using Array = nb::ndarray<Scalar, nb::ndim<dimensions>, nb::c_contig, nb::device::cuda>;
using Rows = nb::ndarray<const uint8_t, nb::ndim<3>, nb::device::cuda>;

// Checks that pixels, out and workspace are on one device, and runs `enqueue` there.
template <class Pixels, class Out, class Enqueue>
void on_device(const Pixels& pixels, const Out& out, const Array<uint8_t, 1>& workspace, int64_t needed_bytes,
               Enqueue enqueue) {
    check_workspace(workspace, needed_bytes);
    const int device = pixels.device_id();
    check_device("out", out, device, "pixels");
    check_device("workspace", workspace, device, "pixels");
    void* memory = workspace.data();
    nb::gil_scoped_release released;
    const DeviceGuard guard(device);
    check(enqueue(memory));
}

int64_t preprocess_workspace_bytes(int64_t source_height, int64_t source_width, int64_t height, int64_t width,
                                   nb::str filter) {
    return resize_workspace_bytes({.pixels = nullptr,
                                   .row_step = 0,
                                   .source_height = source_height,
                                   .source_width = source_width,
                                   .height = height,
                                   .width = width,
                                   .filter = filter_named(filter.c_str())});
}

void run_resize(Rows pixels, nb::str filter, Array<uint8_t, 3> out, Array<uint8_t, 1> workspace, uintptr_t stream) {
    const auto args = resize_args<uint8_t>(pixels, filter, out.shape(0), out.shape(1));
    check_channels("out", out, 2);
    on_device(pixels, out, workspace, resize_workspace_bytes(args), [&, to = out.data()](void* memory) {
        return resize_cuda(args, memory, to, reinterpret_cast<cudaStream_t>(stream));
    });
}

void run_fit(Rows pixels, nb::str filter, Array<float, 3> out, Array<uint8_t, 1> workspace, uintptr_t stream) {
    const auto args = resize_args<uint8_t>(pixels, filter, out.shape(1), out.shape(2));
    check_channels("out", out, 0);
    on_device(pixels, out, workspace, resize_workspace_bytes(args), [&, to = out.data()](void* memory) {
        return resize_to_unit_cuda(args, memory, to, reinterpret_cast<cudaStream_t>(stream));
    });
}

void run_levels(Array<const float, 4> image, Array<uint8_t, 4> out, uintptr_t stream) {
    const LevelsArgs args = levels_args(image, out);
    const int device = image.device_id();
    check_device("out", out, device, "image");
    nb::gil_scoped_release released;
    const DeviceGuard guard(device);
    check(levels_cuda(args, reinterpret_cast<cudaStream_t>(stream)));
}

void run_jpeg(Array<const uint8_t, 3> pixels, int quality, Array<uint8_t, 3> out, Array<uint8_t, 1> workspace,
              uintptr_t stream) {
    check_jpeg(pixels, quality, out);
    const auto height = static_cast<int64_t>(pixels.shape(0)), width = static_cast<int64_t>(pixels.shape(1));
    on_device(pixels, out, workspace, jpeg_workspace_bytes(height, width),
              [&, from = pixels.data(), to = out.data()](void* memory) {
                  return jpeg_round_trip_cuda(from, height, width, quality, memory, to,
                                              reinterpret_cast<cudaStream_t>(stream));
              });
}

}  // namespace

void bind_preprocess_cuda(nb::module_& m) {
    m.def("preprocess_workspace_bytes", &preprocess_workspace_bytes, "source_height"_a, "source_width"_a, "height"_a,
          "width"_a, "filter"_a, "Length of the workspace that resize and fit need.");
    m.def("resize", &run_resize, "pixels"_a.noconvert(), "filter"_a, "out"_a.noconvert(), "workspace"_a.noconvert(),
          "stream"_a = 0,
          "Enqueues on `stream` (a cudaStream_t as an integer) the kernels that write out (h, w, 3), pixels (H, W, 3) "
          "resampled.\n\nAllocates nothing and never synchronises; workspace (bytes,) uint8 must stay untouched until "
          "then.");
    m.def("fit", &run_fit, "pixels"_a.noconvert(), "filter"_a, "out"_a.noconvert(), "workspace"_a.noconvert(),
          "stream"_a = 0,
          "As resize, out (3, h, w) as floats of 0 to 1 with nothing rounded between, clipped to that range.");
    m.def(
        "levels", &run_levels, "image"_a.noconvert(), "out"_a.noconvert(), "stream"_a = 0,
        "Enqueues on `stream` the kernel that writes out (n, H, W, 3), the bytes nearest to 255 times image (n, 3, H, "
        "W). Never synchronises.");
    m.def("jpeg_workspace_bytes", &jpeg_workspace_bytes, "height"_a, "width"_a,
          "Length of the workspace that jpeg_round_trip needs.");
    m.def("jpeg_round_trip", &run_jpeg, "pixels"_a.noconvert(), "quality"_a, "out"_a.noconvert(),
          "workspace"_a.noconvert(), "stream"_a = 0,
          "Enqueues on `stream` the kernels that write out (H, W, 3): what pixels (H, W, 3) become in a JPEG file with "
          "4:2:0 chroma.\n\nAllocates nothing and never synchronises; workspace (bytes,) uint8 must stay untouched "
          "until then.");
}

}  // namespace resynth::bindings
