#include "resynth/noise_cuda.h"

#include "bindings/bind.h"
#include "bindings/cuda_device.h"
#include "bindings/noise.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace resynth::bindings {
namespace {

template <class Scalar, int dimensions>
using Array = nb::ndarray<Scalar, nb::ndim<dimensions>, nb::c_contig, nb::device::cuda>;

void fill(Array<const uint64_t, 1> seeds, Array<const uint32_t, 1> calls, Array<float, 2> out, uintptr_t stream) {
    const NoiseArgs args = noise_args(seeds, calls, out);
    const int device = out.device_id();
    check_device("seeds", seeds, device, "out");
    check_device("calls", calls, device, "out");
    nb::gil_scoped_release released;
    const DeviceGuard guard(device);
    check(noise_cuda(args, reinterpret_cast<cudaStream_t>(stream)));
}

}  // namespace

void bind_noise_cuda(nb::module_& m) {
    m.def("noise", &fill, "seeds"_a.noconvert(), "calls"_a.noconvert(), "out"_a.noconvert(), "stream"_a = 0,
          "Enqueues on `stream` (a cudaStream_t as an integer) the kernel that fills each row of out (rows, elements) "
          "with the normals of its seed and model call, bit for bit the processor's. Never synchronises.");
}

}  // namespace resynth::bindings
