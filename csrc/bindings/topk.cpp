#include "bindings/topk.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace resynth::bindings {
namespace {

template <class Scalar>
using Array = nb::ndarray<Scalar, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

void run(Array<const float> queries, Array<nb::ro> gallery, nb::str metric, Array<float> scores,
         Array<int64_t> indices) {
    const TopKArgs args = topk_args(queries, gallery, metric, scores, indices);
    TopKFault fault;
    {
        nb::gil_scoped_release released;
        fault = topk(args);
    }
    using Where = TopKFault::Where;
    const auto query = static_cast<long long>(fault.query), row = static_cast<long long>(fault.row);
    if (fault.where == Where::queries) fail("queries: row %lld is not finite; every value must be", query);
    if (fault.where == Where::gallery) fail("gallery: row %lld is not finite; every value must be", row);
    if (fault.where == Where::product)
        fail("queries: row %lld and gallery: row %lld have an inner product beyond float32; use metric 'cosine'", query,
             row);
}

}  // namespace

void bind_topk(nb::module_& m) {
    m.def("topk", &run, "queries"_a.noconvert(), "gallery"_a.noconvert(), "metric"_a, "scores"_a.noconvert(),
          "indices"_a.noconvert(), "Writes scores (Q, k) and indices (Q, k); see resynth_fast.kernels.topk.topk.");
}

}  // namespace resynth::bindings
