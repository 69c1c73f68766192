#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "bindings/bind.h"
#include "bindings/check.h"
#include "bindings/pixels.h"
#include "bindings/topk.h"
#include "dispatch.h"
#include "resynth/similarity.h"

namespace nb = nanobind;
using namespace nb::literals;
using resynth::bindings::fail;

namespace {

template <class Scalar, int dimensions>
using Array = nb::ndarray<Scalar, nb::ndim<dimensions>, nb::c_contig, nb::device::cpu>;

void similarity(Array<const float, 2> probes, Array<const float, 2> references, Array<const int64_t, 1> offsets,
                nb::str reduce, Array<float, 2> scores, Array<int64_t, 1> best, Array<float, 1> margin) {
    const auto args = resynth::bindings::similarity_args(probes, references, offsets, reduce, scores, best, margin);
    resynth::bindings::check_offsets(args.offsets, args.probe_count * args.candidate_count, args.reference_count,
                                     "references");
    resynth::NonFinite fault;
    {
        nb::gil_scoped_release released;
        fault = resynth::similarity(args);
    }
    if (fault.where != resynth::NonFinite::Where::nowhere)
        fail("%s: row %lld is not finite; every value must be",
             fault.where == resynth::NonFinite::Where::probes ? "probes" : "references", (long long)fault.row);
}

}  // namespace

NB_MODULE(_native, m) {
    m.doc() = "CPU kernels. resynth_fast.kernels.similarity and its neighbours are the public face.";
    resynth::isa();  // a wrong RESYNTH_ISA fails the import, not some later call

    m.def("isa", [] { return std::string(resynth::name_of(resynth::isa())); }, "Instruction set in use.");
    m.def("supported_isas", &resynth::supported_isas, "Instruction sets of this processor, slowest first.");
    m.def("force_isa", &resynth::force_isa, "name"_a,
          "Use this instruction set from now on; ValueError if unsupported.");

    m.def("similarity", &similarity, "probes"_a.noconvert(), "references"_a.noconvert(), "offsets"_a.noconvert(),
          "reduce"_a, "scores"_a.noconvert(), "best"_a.noconvert(), "margin"_a.noconvert(),
          "Writes scores (P, C), best (P,) and margin (P,); see resynth_fast.kernels.similarity.similarity.");

    resynth::bindings::bind_at_address(m);
    resynth::bindings::bind_finite(m);
    resynth::bindings::bind_noise(m);
    resynth::bindings::bind_step(m);
    resynth::bindings::bind_preprocess(m);
    resynth::bindings::bind_score(m);
    resynth::bindings::bind_texture(m);
    resynth::bindings::bind_topk(m);
}
