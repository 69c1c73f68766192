#include "bindings/step.h"

#include "bindings/bind.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace resynth::bindings {
namespace {

using Weights = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Read = nb::ndarray<const float, nb::c_contig, nb::device::cpu>;
using Written = nb::ndarray<float, nb::c_contig, nb::device::cpu>;

void run(Weights weights, std::vector<Read> samples, std::vector<Read> outputs, std::optional<Read> unconditional,
         std::optional<Read> noise, Written out, std::optional<Written> guided, std::optional<Written> scaled) {
    const StepArgs args =
        step_args(weights, StepArrays<Read, Written>{samples, outputs, unconditional, noise, out, guided, scaled});
    check_weights(args);
    nb::gil_scoped_release released;
    step(args);
}

}  // namespace

void bind_step(nb::module_& m) {
    m.def("step", &run, "weights"_a.noconvert(), "samples"_a.noconvert(), "outputs"_a.noconvert(),
          "unconditional"_a.noconvert().none(), "noise"_a.noconvert().none(), "out"_a.noconvert(),
          "guided"_a.noconvert().none(), "scaled"_a.noconvert().none(),
          "Writes the next sample of each row to out, and guided and scaled where given; see "
          "resynth_fast.kernels.step.step.");
}

}  // namespace resynth::bindings
