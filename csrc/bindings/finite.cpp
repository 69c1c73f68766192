#include "resynth/finite.h"

#include <nanobind/ndarray.h>

#include "bindings/bind.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace resynth::bindings {
namespace {

template <class Scalar, class... Dimensions>
using Array = nb::ndarray<Scalar, Dimensions..., nb::c_contig, nb::device::cpu>;

void run(Array<const float> values, Array<int32_t, nb::shape<1>> found) {
    const FaultsArgs args{values.data(), static_cast<int64_t>(values.size()), found.data()};
    nb::gil_scoped_release released;
    faults(args);
}

}  // namespace

void bind_finite(nb::module_& m) {
    m.def("faults", &run, "values"_a.noconvert(), "found"_a.noconvert(),
          "Raises found (1,), by one at least, if any of the values (…) is not finite.");
}

}  // namespace resynth::bindings
