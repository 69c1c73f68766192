#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "bindings/bind.h"
#include "dispatch.h"

namespace nb = nanobind;
using namespace nb::literals;

NB_MODULE(_native, m) {
    m.doc() = "CPU kernels. resynth_fast.kernels.similarity and its neighbours are the public face.";
    resynth::isa();  // a wrong RESYNTH_ISA fails the import, not some later call

    m.def("isa", [] { return std::string(resynth::name_of(resynth::isa())); }, "Instruction set in use.");
    m.def("supported_isas", &resynth::supported_isas, "Instruction sets of this processor, slowest first.");
    m.def("force_isa", &resynth::force_isa, "name"_a,
          "Use this instruction set from now on; ValueError if unsupported.");

    resynth::bindings::bind_at_address(m);
    resynth::bindings::bind_finite(m);
    resynth::bindings::bind_noise(m);
    resynth::bindings::bind_preprocess(m);
    resynth::bindings::bind_score(m);
    resynth::bindings::bind_similarity(m);
    resynth::bindings::bind_step(m);
    resynth::bindings::bind_texture(m);
    resynth::bindings::bind_topk(m);
}
