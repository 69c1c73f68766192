// Relations between arguments, which nanobind's types cannot express. An error names argument, value and what is
// allowed.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstdarg>
#include <cstdio>
#include <cstring>

#include "resynth/similarity.h"

namespace resynth::bindings {

[[noreturn]] [[gnu::format(printf, 1, 2)]] inline void fail(const char* format, ...) {
    char text[256];
    va_list values;
    va_start(values, format);
    std::vsnprintf(text, sizeof text, format, values);
    va_end(values);
    throw nanobind::value_error(text);
}

template <class Array>
long long extent(const Array& array, size_t axis) {
    return static_cast<long long>(array.shape(axis));
}

template <class Array>
void check_shape(const char* name, const Array& array, long long rows, long long columns = -1) {
    if (extent(array, 0) == rows && (columns < 0 || extent(array, array.ndim() - 1) == columns)) return;
    if (columns < 0) fail("%s has length %lld; it must have %lld", name, extent(array, 0), rows);
    fail("%s has shape (%lld, %lld); it must have (%lld, %lld)", name, extent(array, 0), extent(array, 1), rows,
         columns);
}

// Alignment too: the kernels take pieces of many types out of it.
template <class Workspace>
void check_workspace(const Workspace& workspace, long long bytes) {
    if (extent(workspace, 0) < bytes)
        fail("workspace has length %lld; it must have at least %lld", extent(workspace, 0), bytes);
    if (reinterpret_cast<uintptr_t>(workspace.data()) % 256 != 0) fail("workspace must be aligned to 256 bytes");
}

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

// `count`: what the groups divide, called `counted`.
inline void check_offsets(const int64_t* offsets, int64_t groups, int64_t count, const char* counted) {
    if (offsets[0] != 0) fail("offsets[0] is %lld; it must be 0", (long long)offsets[0]);
    for (int64_t g = 0; g < groups; ++g)
        if (offsets[g + 1] < offsets[g])
            fail("offsets[%lld] is %lld; it must be at least offsets[%lld] = %lld", (long long)g + 1,
                 (long long)offsets[g + 1], (long long)g, (long long)offsets[g]);
    if (offsets[groups] != count)
        fail("offsets[%lld] is %lld; it must be %lld, the number of %s", (long long)groups, (long long)offsets[groups],
             (long long)count, counted);
}

}  // namespace resynth::bindings
