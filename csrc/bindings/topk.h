// topk's arguments from arrays on any device: shapes and addresses only, no element is read.
#pragma once

#include <nanobind/stl/optional.h>
#include <nanobind/stl/vector.h>

#include <optional>
#include <string>
#include <vector>

#include "bindings/check.h"
#include "resynth/topk.h"

namespace resynth::bindings {

// The arrays of one call with their names, so that an error can name the argument.
template <class Device>
struct TopKArrays {
    template <class Scalar, int dimensions>
    using Array = nanobind::ndarray<Scalar, nanobind::ndim<dimensions>, nanobind::c_contig, Device>;

    Array<const float, 2> queries;
    std::vector<Array<nanobind::ro, 2>> blocks;
    std::optional<Array<const float, 1>> offsets, weights;
    std::optional<Array<const int32_t, 1>> groups;
    Array<float, 3> scores;
    Array<int64_t, 3> indices;

    template <class Visit>
    void each_but_queries(Visit visit) const {
        for (size_t b = 0; b < blocks.size(); ++b) visit(("blocks[" + std::to_string(b) + "]").c_str(), blocks[b]);
        if (offsets) visit("offsets", *offsets);
        if (weights) visit("weights", *weights);
        if (groups) visit("groups", *groups);
        visit("scores", scores);
        visit("indices", indices);
    }
};

template <class Block>
Storage storage_of(size_t b, const Block& block) {
    if (block.dtype() == nanobind::dtype<float>()) return Storage::float32;
    if (block.dtype() == nanobind::dlpack::dtype{static_cast<uint8_t>(nanobind::dlpack::dtype_code::Float), 16, 1})
        return Storage::float16;
    throw nanobind::type_error(("blocks[" + std::to_string(b) + "] must hold float32 or float16").c_str());
}

template <class Device>
TopKArgs topk_args(const TopKArrays<Device>& arrays) {
    const long long queries = extent(arrays.queries, 0), dimension = extent(arrays.queries, 1);
    const long long groups = extent(arrays.scores, 1), k = extent(arrays.scores, 2);
    if (queries < 1 || dimension < 1)
        fail("queries has shape (%lld, %lld); it must have at least one row and one column", queries, dimension);
    if (arrays.blocks.empty() || arrays.blocks.size() > topk_most_blocks)
        fail("blocks has %zu arrays; it must have 1 to %lld", arrays.blocks.size(), (long long)topk_most_blocks);
    TopKArgs args{};
    args.queries = arrays.queries.data();
    args.offsets = arrays.offsets ? arrays.offsets->data() : nullptr;
    args.weights = arrays.weights ? arrays.weights->data() : nullptr;
    args.groups = arrays.groups ? arrays.groups->data() : nullptr;
    args.block_count = static_cast<int64_t>(arrays.blocks.size());
    args.storage = storage_of(0, arrays.blocks[0]);
    args.query_count = queries;
    args.row_count = extent(arrays.blocks[0], 0);
    args.group_count = groups;
    args.k = k;
    args.scores = arrays.scores.data();
    args.indices = arrays.indices.data();
    for (size_t b = 0; b < arrays.blocks.size(); ++b) {
        const auto& block = arrays.blocks[b];
        if (storage_of(b, block) != args.storage) fail("blocks[%zu] holds another type than blocks[0]", b);
        if (extent(block, 0) != args.row_count || extent(block, 1) < 1)
            fail(
                "blocks[%zu] has shape (%lld, %lld); it must have %lld rows, as blocks[0] has, and at least one column",
                b, extent(block, 0), extent(block, 1), (long long)args.row_count);
        args.blocks[b] = {block.data(), extent(block, 1)};
        args.dimension += extent(block, 1);
    }
    if (args.dimension != dimension)
        fail("blocks has %lld columns in all; it must have %lld, as queries has", (long long)args.dimension, dimension);
    if (arrays.offsets) check_shape("offsets", *arrays.offsets, queries);
    if (arrays.weights) check_shape("weights", *arrays.weights, args.row_count);
    if (arrays.groups) check_shape("groups", *arrays.groups, args.row_count);
    if (groups < 1 || extent(arrays.scores, 0) != queries)
        fail("scores has shape (%lld, %lld, %lld); it must have %lld rows, as queries has, and at least one group",
             extent(arrays.scores, 0), groups, k, queries);
    for (size_t axis = 0; axis < 3; ++axis)
        if (extent(arrays.indices, axis) != extent(arrays.scores, axis)) fail("indices must have the shape of scores");
    return args;
}

}  // namespace resynth::bindings
