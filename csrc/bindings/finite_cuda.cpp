#include "resynth/finite_cuda.h"

#include <nanobind/ndarray.h>

#include "bindings/bind.h"
#include "bindings/cuda_device.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace resynth::bindings {
namespace {

template <class Scalar, class... Dimensions>
using Array = nb::ndarray<Scalar, Dimensions..., nb::c_contig, nb::device::cuda>;

void run(Array<const float> values, Array<int32_t, nb::shape<1>> found, uintptr_t stream) {
    const FaultsArgs args{values.data(), static_cast<int64_t>(values.size()), found.data()};
    const int device = values.device_id();
    check_device("found", found, device, "values");
    nb::gil_scoped_release released;
    const DeviceGuard guard(device);
    check(faults_cuda(args, reinterpret_cast<cudaStream_t>(stream)));
}

}  // namespace

void bind_finite_cuda(nb::module_& m) {
    m.def("faults", &run, "values"_a.noconvert(), "found"_a.noconvert(), "stream"_a = 0,
          "Enqueues on `stream` (a cudaStream_t as an integer) the kernel that raises found (1,), by one at least, if "
          "any of the values (…) is not finite. Never synchronises.");
}

}  // namespace resynth::bindings
