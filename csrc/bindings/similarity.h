#pragma once

#include <cstring>

#include "bindings/check.h"
#include "resynth/similarity.h"

namespace resynth::bindings {

inline Reduce reduce_named(const char* name) {
    if (std::strcmp(name, "max") == 0) return Reduce::max;
    if (std::strcmp(name, "mean") == 0) return Reduce::mean;
    fail("reduce is '%s'; it must be 'max' or 'mean'", name);
}

// Shapes only: reads no element, so it serves arrays on any device.
template <class Rows, class Offsets, class Scores, class Best, class Margin>
SimilarityArgs similarity_args(const Rows& probes, const Rows& references, const Offsets& offsets,
                               const nanobind::str& reduce, const Scores& scores, const Best& best,
                               const Margin& margin) {
    const long long rows = extent(probes, 0), dimension = extent(probes, 1), groups = extent(offsets, 0) - 1;
    if (rows < 1 || dimension < 1)
        fail("probes has shape (%lld, %lld); it must have at least one row and one column", rows, dimension);
    if (extent(references, 1) != dimension)
        fail("references has %lld columns; it must have %lld, as probes has", extent(references, 1), dimension);
    if (groups < 1 || groups % rows != 0)
        fail("offsets has length %lld; it must be probes * candidates + 1, with %lld probes", groups + 1, rows);
    const long long candidates = groups / rows;
    check_shape("scores", scores, rows, candidates);
    check_shape("best", best, rows);
    check_shape("margin", margin, rows);
    return {.probes = probes.data(),
            .references = references.data(),
            .offsets = offsets.data(),
            .probe_count = rows,
            .reference_count = extent(references, 0),
            .candidate_count = candidates,
            .dimension = dimension,
            .reduce = reduce_named(reduce.c_str()),
            .scores = scores.data(),
            .best = best.data(),
            .margin = margin.data()};
}

}  // namespace resynth::bindings
