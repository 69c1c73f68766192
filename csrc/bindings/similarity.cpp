#include "bindings/similarity.h"

#include "bindings/bind.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace resynth::bindings {
namespace {

template <class Scalar, int dimensions>
using Array = nb::ndarray<Scalar, nb::ndim<dimensions>, nb::c_contig, nb::device::cpu>;

void run(Array<const float, 2> probes, Array<const float, 2> references, Array<const int64_t, 1> offsets,
         nb::str reduce, Array<float, 2> scores, Array<int64_t, 1> best, Array<float, 1> margin) {
    const SimilarityArgs args = similarity_args(probes, references, offsets, reduce, scores, best, margin);
    check_offsets(args.offsets, args.probe_count * args.candidate_count, args.reference_count, "references");
    NonFinite fault;
    {
        nb::gil_scoped_release released;
        fault = similarity(args);
    }
    if (fault.where != NonFinite::Where::nowhere)
        fail("%s: row %lld is not finite; every value must be",
             fault.where == NonFinite::Where::probes ? "probes" : "references", (long long)fault.row);
}

}  // namespace

void bind_similarity(nb::module_& m) {
    m.def("similarity", &run, "probes"_a.noconvert(), "references"_a.noconvert(), "offsets"_a.noconvert(), "reduce"_a,
          "scores"_a.noconvert(), "best"_a.noconvert(), "margin"_a.noconvert(),
          "Writes scores (P, C), best (P,) and margin (P,); see resynth_fast.kernels.similarity.similarity.");
}

}  // namespace resynth::bindings
