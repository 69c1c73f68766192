#include "resynth/topk_cuda.h"

#include "bindings/bind.h"
#include "bindings/cuda_device.h"
#include "bindings/topk.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace resynth::bindings {
namespace {

using Arrays = TopKArrays<nb::device::cuda>;
using Bytes = nb::ndarray<uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cuda>;

void run(decltype(Arrays::queries) queries, decltype(Arrays::blocks) blocks, decltype(Arrays::offsets) offsets,
         decltype(Arrays::weights) weights, decltype(Arrays::groups) groups, decltype(Arrays::scores) scores,
         decltype(Arrays::indices) indices, Bytes workspace, uintptr_t stream) {
    const Arrays arrays{queries, blocks, offsets, weights, groups, scores, indices};
    const TopKArgs args = topk_args(arrays);
    if (args.k > topk_cuda_largest_k)
        fail("scores is for %lld rows of a group; at most %lld are possible", (long long)args.k,
             (long long)topk_cuda_largest_k);
    check_workspace(workspace, topk_cuda_workspace(args.query_count, args.row_count, args.group_count, args.k));
    const int device = queries.device_id();
    const auto on_device = [device](const char* name, const auto& array) {
        check_device(name, array, device, "queries");
    };
    arrays.each_but_queries(on_device);
    on_device("workspace", workspace);
    nb::gil_scoped_release released;
    const DeviceGuard guard(device);
    check(topk_cuda(args, workspace.data(), reinterpret_cast<cudaStream_t>(stream)));
}

}  // namespace

void bind_topk_cuda(nb::module_& m) {
    m.def("topk_workspace_bytes", &topk_cuda_workspace, "queries"_a, "rows"_a, "groups"_a, "k"_a,
          "Bytes of device memory that topk needs for so many queries, gallery rows, groups and results.");
    m.def("topk", &run, "queries"_a.noconvert(), "blocks"_a.noconvert(), "offsets"_a.noconvert().none(),
          "weights"_a.noconvert().none(), "groups"_a.noconvert().none(), "scores"_a.noconvert(),
          "indices"_a.noconvert(), "workspace"_a.noconvert(), "stream"_a = 0,
          "Enqueues on `stream` (a cudaStream_t as an integer) the kernels that write scores (Q, G, k) and indices "
          "(Q, G, k), k at most 128.\n\nNever synchronises: where a score is not finite, all of that query and group "
          "are NaN and their indices -1.");
}

}  // namespace resynth::bindings
