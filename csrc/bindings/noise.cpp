#include "bindings/noise.h"

#include "bindings/bind.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace resynth::bindings {
namespace {

template <class Scalar, int dimensions>
using Array = nb::ndarray<Scalar, nb::ndim<dimensions>, nb::c_contig, nb::device::cpu>;

void fill(Array<const uint64_t, 1> seeds, Array<const uint32_t, 1> calls, Array<float, 2> out) {
    const NoiseArgs args = noise_args(seeds, calls, out);
    nb::gil_scoped_release released;
    noise(args);
}

}  // namespace

void bind_noise(nb::module_& m) {
    m.def("noise", &fill, "seeds"_a.noconvert(), "calls"_a.noconvert(), "out"_a.noconvert(),
          "Fills each row of out (rows, elements) with the normals of its seed and model call; see "
          "resynth_fast.kernels.noise.");
}

}  // namespace resynth::bindings
