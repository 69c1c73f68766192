#include "bindings/topk.h"

#include "bindings/bind.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace resynth::bindings {
namespace {

using Arrays = TopKArrays<nb::device::cpu>;

void check_groups(const TopKArgs& args) {
    if (!args.groups) return;
    for (int64_t n = 0; n < args.row_count; ++n)
        if (args.groups[n] >= args.group_count)
            fail("groups[%lld] is %d; it must be below %lld, the number of groups", (long long)n, args.groups[n],
                 (long long)args.group_count);
}

void run(decltype(Arrays::queries) queries, decltype(Arrays::blocks) blocks, decltype(Arrays::offsets) offsets,
         decltype(Arrays::weights) weights, decltype(Arrays::groups) groups, decltype(Arrays::scores) scores,
         decltype(Arrays::indices) indices) {
    const TopKArgs args = topk_args(Arrays{queries, blocks, offsets, weights, groups, scores, indices});
    check_groups(args);
    TopKFault fault;
    {
        nb::gil_scoped_release released;
        fault = topk(args);
    }
    using Where = TopKFault::Where;
    const auto query = static_cast<long long>(fault.query), row = static_cast<long long>(fault.row);
    if (fault.where == Where::queries) fail("queries: row %lld is not finite; every value must be", query);
    if (fault.where == Where::offsets) fail("offsets[%lld] is not finite; every value must be", query);
    if (fault.where == Where::gallery) fail("gallery: row %lld is not finite; every value must be", row);
    if (fault.where == Where::weights) fail("weights[%lld] is not finite; every value must be", row);
    if (fault.where == Where::score)
        fail("queries: row %lld and gallery: row %lld have a score beyond float32; scale one of them", query, row);
}

}  // namespace

void bind_topk(nb::module_& m) {
    m.def("topk", &run, "queries"_a.noconvert(), "blocks"_a.noconvert(), "offsets"_a.noconvert().none(),
          "weights"_a.noconvert().none(), "groups"_a.noconvert().none(), "scores"_a.noconvert(),
          "indices"_a.noconvert(),
          "Writes scores (Q, G, k) and indices (Q, G, k); see resynth_fast.kernels.topk.topk.");
}

}  // namespace resynth::bindings
