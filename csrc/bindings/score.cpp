#include "bindings/score.h"

#include <nanobind/stl/optional.h>

#include "bindings/bind.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace resynth::bindings {
namespace {

template <class Scalar, int dimensions>
using Array = nb::ndarray<Scalar, nb::ndim<dimensions>, nb::c_contig, nb::device::cpu>;
template <int dimensions>
using Doubles = Array<const double, dimensions>;

void check_rows(const ScoreArgs& args) {
    for (int64_t k = 0; k < args.row_count; ++k)
        if (args.rows[k] < 0 || args.rows[k] >= args.reference_count)
            fail("rows[%lld] is %lld; it must be a row of references, 0 … %lld", (long long)k, (long long)args.rows[k],
                 (long long)args.reference_count - 1);
    for (int64_t p = 0; p < args.probe_count && !args.content; ++p)
        if (args.offsets[p * args.candidate_count] == args.offsets[(p + 1) * args.candidate_count])
            fail("probe %lld has no references; it must have one at least, or `content`", (long long)p);
}

void run(Doubles<3> points, Doubles<2> references, Array<const int64_t, 1> rows, Array<const int64_t, 1> offsets,
         std::optional<Doubles<2>> content, std::optional<Doubles<3>> means, Doubles<2> weights, Doubles<2> spreads,
         Doubles<1> advantage, double energy, Array<double, 3> scores, Array<double, 2> consistency) {
    const ScoreArgs args = score_args(points, references, rows, offsets, content, means, weights, spreads, advantage,
                                      energy, scores, consistency);
    check_offsets(args.offsets, args.probe_count * args.candidate_count, args.row_count, "rows");
    check_rows(args);
    nb::gil_scoped_release released;
    score(args);
}

}  // namespace

void bind_score(nb::module_& m) {
    m.def("score", &run, "points"_a.noconvert(), "references"_a.noconvert(), "rows"_a.noconvert(),
          "offsets"_a.noconvert(), "content"_a.noconvert().none(), "means"_a.noconvert().none(),
          "weights"_a.noconvert(), "spreads"_a.noconvert(), "advantage"_a.noconvert(), "energy"_a,
          "scores"_a.noconvert(), "consistency"_a.noconvert(),
          "Writes scores (P, n, C) and consistency (P, n); see resynth_fast.kernels.similarity.score.");
}

}  // namespace resynth::bindings
