#include "resynth/texture.h"

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include "bindings/bind.h"
#include "bindings/texture_args.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

template <class Scalar, int dimensions>
using Array = nb::ndarray<Scalar, nb::ndim<dimensions>, nb::c_contig, nb::device::cpu>;

void describe(Array<const uint8_t, 4> pictures, Array<float, 2> features) {
    const auto args = resynth::bindings::texture_args(pictures, features);
    nb::gil_scoped_release released;
    resynth::texture(args);
}

}  // namespace

namespace resynth::bindings {

void bind_texture(nb::module_& m) {
    m.def("texture", &describe, "pictures"_a.noconvert(), "features"_a.noconvert(),
          "Writes features (n, d) of pictures (n, S, S, 3); see resynth_fast.extractors.texture.");
}

}  // namespace resynth::bindings
