#include "resynth/step_cuda.h"

#include "bindings/bind.h"
#include "bindings/cuda_device.h"
#include "bindings/step.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace resynth::bindings {
namespace {

using Weights = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cuda>;
using Read = nb::ndarray<const float, nb::c_contig, nb::device::cuda>;
using Written = nb::ndarray<float, nb::c_contig, nb::device::cuda>;

void run(Weights weights, std::vector<Read> samples, std::vector<Read> outputs, std::optional<Read> unconditional,
         std::optional<Read> noise, Written out, std::optional<Written> guided, std::optional<Written> scaled,
         uintptr_t stream) {
    const StepArrays<Read, Written> arrays{samples, outputs, unconditional, noise, out, guided, scaled};
    const StepArgs args = step_args(weights, arrays);
    const int device = out.device_id();
    const auto on_device = [device](const char* name, const auto& array) { check_device(name, array, device, "out"); };
    on_device("weights", weights);
    arrays.each_read(on_device);
    arrays.each_written(on_device);
    nb::gil_scoped_release released;
    const DeviceGuard guard(device);
    check(step_cuda(args, reinterpret_cast<cudaStream_t>(stream)));
}

}  // namespace

void bind_step_cuda(nb::module_& m) {
    m.def("step", &run, "weights"_a.noconvert(), "samples"_a.noconvert(), "outputs"_a.noconvert(),
          "unconditional"_a.noconvert().none(), "noise"_a.noconvert().none(), "out"_a.noconvert(),
          "guided"_a.noconvert().none(), "scaled"_a.noconvert().none(), "stream"_a = 0,
          "Enqueues on `stream` (a cudaStream_t as an integer) the kernel that writes the next sample of each row to "
          "out, and guided and scaled where given, bit for bit the processor's.\n\nNever synchronises and reads no "
          "weight: one whose array is absent counts as zero.");
}

}  // namespace resynth::bindings
