#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include "bindings/bind.h"
#include "bindings/preprocess_args.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

template <class Scalar, int dimensions>
using Array = nb::ndarray<Scalar, nb::ndim<dimensions>, nb::c_contig, nb::device::cpu>;
template <class Scalar>
using Rows = nb::ndarray<const Scalar, nb::ndim<3>, nb::device::cpu>;

template <class Scalar>
void resize_array(Rows<Scalar> pixels, nb::str filter, Array<Scalar, 3> out) {
    const auto args = resynth::bindings::resize_args<Scalar>(pixels, filter, out.shape(0), out.shape(1));
    resynth::bindings::check_channels("out", out, 2);
    Scalar* data = out.data();
    nb::gil_scoped_release released;
    resynth::resize(args, data);
}

void unit_array(Rows<uint8_t> pixels, nb::str filter, Array<float, 3> out) {
    const auto args = resynth::bindings::resize_args<uint8_t>(pixels, filter, out.shape(1), out.shape(2));
    resynth::bindings::check_channels("out", out, 0);
    float* data = out.data();
    nb::gil_scoped_release released;
    resynth::resize_to_unit(args, data);
}

void levels_array(Array<const float, 4> image, Array<uint8_t, 4> out) {
    const auto args = resynth::bindings::levels_args(image, out);
    nb::gil_scoped_release released;
    resynth::levels(args);
}

void jpeg_array(Array<const uint8_t, 3> pixels, int quality, Array<uint8_t, 3> out) {
    resynth::bindings::check_jpeg(pixels, quality, out);
    const uint8_t* from = pixels.data();
    uint8_t* to = out.data();
    const auto height = static_cast<int64_t>(pixels.shape(0)), width = static_cast<int64_t>(pixels.shape(1));
    nb::gil_scoped_release released;
    resynth::jpeg_round_trip(from, height, width, quality, to);
}

}  // namespace

namespace resynth::bindings {

void bind_preprocess(nb::module_& m) {
    m.def("resize", &resize_array<uint8_t>, "pixels"_a.noconvert(), "filter"_a, "out"_a.noconvert(),
          "Writes out (h, w, 3), pixels (H, W, 3) resampled; see resynth_fast.kernels.preprocess.resize.");
    m.def("resize", &resize_array<float>, "pixels"_a.noconvert(), "filter"_a, "out"_a.noconvert());
    m.def("fit", &unit_array, "pixels"_a.noconvert(), "filter"_a, "out"_a.noconvert(),
          "Writes out (3, h, w), pixels (H, W, 3) as floats of 0 to 1, resampled and clipped to them.");
    m.def("levels", &levels_array, "image"_a.noconvert(), "out"_a.noconvert(),
          "Writes out (n, H, W, 3), the bytes nearest to 255 times image (n, 3, H, W).");
    m.def("jpeg_round_trip", &jpeg_array, "pixels"_a.noconvert(), "quality"_a, "out"_a.noconvert(),
          "Writes out (H, W, 3): what pixels (H, W, 3) become in a JPEG file with 4:2:0 chroma.");
}

}  // namespace resynth::bindings
