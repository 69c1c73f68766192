#include "resynth/topk_cuda.h"

#include "bindings/cuda_device.h"
#include "bindings/topk.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace resynth::bindings {
namespace {

template <class Scalar, int dimensions = 2>
using Array = nb::ndarray<Scalar, nb::ndim<dimensions>, nb::c_contig, nb::device::cuda>;

void run(Array<const float> queries, Array<nb::ro> gallery, nb::str metric, Array<float> scores, Array<int64_t> indices,
         Array<uint8_t, 1> workspace, uintptr_t stream) {
    const TopKArgs args = topk_args(queries, gallery, metric, scores, indices);
    if (args.k > topk_cuda_largest_k)
        fail("scores has %lld columns; at most %lld are possible", (long long)args.k, (long long)topk_cuda_largest_k);
    if (args.query_count > 65535)
        fail("queries has %lld rows; at most 65535 are possible", (long long)args.query_count);
    const long long needed = topk_cuda_workspace(args.query_count, args.row_count, args.k);
    if (extent(workspace, 0) < needed)
        fail("workspace has length %lld; it must have at least %lld", extent(workspace, 0), needed);
    if (reinterpret_cast<uintptr_t>(workspace.data()) % sizeof(int64_t) != 0)
        fail("workspace must be aligned to 8 bytes");
    const int device = queries.device_id();
    check_device("gallery", gallery, device, "queries");
    check_device("scores", scores, device, "queries");
    check_device("indices", indices, device, "queries");
    check_device("workspace", workspace, device, "queries");
    nb::gil_scoped_release released;
    const DeviceGuard guard(device);
    check(topk_cuda(args, workspace.data(), reinterpret_cast<cudaStream_t>(stream)));
}

}  // namespace

void bind_topk_cuda(nb::module_& m) {
    m.def("topk_workspace", &topk_cuda_workspace, "queries"_a, "rows"_a, "k"_a,
          "Bytes of device memory that topk needs for so many queries, gallery rows and results.");
    m.def(
        "topk", &run, "queries"_a.noconvert(), "gallery"_a.noconvert(), "metric"_a, "scores"_a.noconvert(),
        "indices"_a.noconvert(), "workspace"_a.noconvert(), "stream"_a = 0,
        "Enqueues on `stream` (a cudaStream_t as an integer) the kernels that write scores (Q, k) and indices (Q, k), "
        "k at most 128; a gallery of uint16 is bfloat16.\n\nNever synchronises: a query whose score with any row is "
        "not finite gets index -1 and score NaN.");
}

}  // namespace resynth::bindings
