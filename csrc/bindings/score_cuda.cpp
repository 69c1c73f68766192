#include "resynth/score_cuda.h"

#include <nanobind/stl/optional.h>

#include "bindings/bind.h"
#include "bindings/cuda_device.h"
#include "bindings/score.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace resynth::bindings {
namespace {

template <class Scalar, int dimensions>
using Array = nb::ndarray<Scalar, nb::ndim<dimensions>, nb::c_contig, nb::device::cuda>;
template <int dimensions>
using Doubles = Array<const double, dimensions>;

void run(Doubles<3> points, Doubles<2> references, Array<const int64_t, 1> rows, Array<const int64_t, 1> offsets,
         std::optional<Doubles<2>> content, std::optional<Doubles<3>> means, Doubles<2> weights, Doubles<2> spreads,
         Doubles<1> advantage, double energy, Array<double, 3> scores, Array<double, 2> consistency,
         Array<uint8_t, 1> workspace, uintptr_t stream) {
    const ScoreArgs args = score_args(points, references, rows, offsets, content, means, weights, spreads, advantage,
                                      energy, scores, consistency);
    check_workspace(workspace,
                    score_cuda_workspace(args.probe_count, args.point_count, args.candidate_count, args.dimension));
    const int device = points.device_id();
    const auto there = [device](const char* name, const auto& array) { check_device(name, array, device, "points"); };
    there("references", references), there("rows", rows), there("offsets", offsets);
    if (content) there("content", *content);
    if (means) there("means", *means);
    there("weights", weights), there("spreads", spreads), there("advantage", advantage);
    there("scores", scores), there("consistency", consistency), there("workspace", workspace);
    nb::gil_scoped_release released;
    const DeviceGuard guard(device);
    check(score_cuda(args, workspace.data(), reinterpret_cast<cudaStream_t>(stream)));
}

}  // namespace

void bind_score_cuda(nb::module_& m) {
    m.def("score_workspace_bytes", &score_cuda_workspace, "probes"_a, "points"_a, "candidates"_a, "dimension"_a,
          "Bytes of device memory that score needs.");
    m.def("score", &run, "points"_a.noconvert(), "references"_a.noconvert(), "rows"_a.noconvert(),
          "offsets"_a.noconvert(), "content"_a.noconvert().none(), "means"_a.noconvert().none(),
          "weights"_a.noconvert(), "spreads"_a.noconvert(), "advantage"_a.noconvert(), "energy"_a,
          "scores"_a.noconvert(), "consistency"_a.noconvert(), "workspace"_a.noconvert(), "stream"_a = 0,
          "Enqueues on `stream` (a cudaStream_t as an integer) the kernels that write scores (P, n, C) and consistency "
          "(P, n).\n\nNever synchronises: rows or offsets out of range, and a probe with neither references nor "
          "content, give NaN.");
}

}  // namespace resynth::bindings
