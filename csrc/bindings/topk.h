#pragma once

#include "bindings/check.h"
#include "resynth/topk.h"

namespace resynth::bindings {

void bind_topk(nanobind::module_& m);
void bind_topk_cuda(nanobind::module_& m);

inline Metric metric_named(const char* name) {
    if (std::strcmp(name, "dot") == 0) return Metric::dot;
    if (std::strcmp(name, "cosine") == 0) return Metric::cosine;
    fail("metric is '%s'; it must be 'dot' or 'cosine'", name);
}

// Shapes only: reads no element, so it serves arrays on any device.
template <class Queries, class Gallery, class Scores, class Indices>
TopKArgs topk_args(const Queries& queries, const Gallery& gallery, const nanobind::str& metric, const Scores& scores,
                   const Indices& indices) {
    const long long rows = extent(queries, 0), dimension = extent(queries, 1), k = extent(scores, 1);
    if (rows < 1 || dimension < 1)
        fail("queries has shape (%lld, %lld); it must have at least one row and one column", rows, dimension);
    if (extent(gallery, 1) != dimension)
        fail("gallery has %lld columns; it must have %lld, as queries has", extent(gallery, 1), dimension);
    if (k > extent(gallery, 0)) fail("scores has %lld columns; gallery has %lld rows", k, extent(gallery, 0));
    check_shape("scores", scores, rows, k);
    check_shape("indices", indices, rows, k);
    const bool is_float = gallery.dtype() == nanobind::dtype<float>();
    if (!is_float && gallery.dtype() != nanobind::dtype<uint16_t>())
        throw nanobind::type_error("gallery must hold float32, or bfloat16 as uint16");
    return {.queries = queries.data(),
            .gallery = gallery.data(),
            .storage = is_float ? Storage::float32 : Storage::bfloat16,
            .metric = metric_named(metric.c_str()),
            .query_count = rows,
            .row_count = extent(gallery, 0),
            .dimension = dimension,
            .k = k,
            .scores = scores.data(),
            .indices = indices.data()};
}

}  // namespace resynth::bindings
