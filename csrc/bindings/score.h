#pragma once

#include <optional>

#include "bindings/check.h"
#include "resynth/score.h"

namespace resynth::bindings {

template <class Array>
void check_prior(const char* name, const Array& array, long long priors, long long candidates) {
    if (extent(array, 0) == priors && extent(array, 1) == candidates) return;
    fail("%s has shape (%lld, %lld); it must have (%lld, %lld), a prior and a candidate each", name, extent(array, 0),
         extent(array, 1), priors, candidates);
}

// Shapes only: reads no element, so it serves arrays on any device. Matrix and Cube are of double, of 2 and 3 axes.
template <class Cube, class Matrix, class Indices, class Means, class Advantage, class Scores, class Consistency>
ScoreArgs score_args(const Cube& points, const Matrix& references, const Indices& rows, const Indices& offsets,
                     const std::optional<Matrix>& content, const std::optional<Means>& means, const Matrix& weights,
                     const Matrix& spreads, const Advantage& advantage, double energy, const Scores& scores,
                     const Consistency& consistency) {
    const long long probes = extent(points, 0), each = extent(points, 1), dimension = extent(points, 2);
    const long long groups = extent(offsets, 0) - 1, priors = extent(advantage, 0);
    if (probes < 1 || each < 1 || dimension < 1)
        fail("points has shape (%lld, %lld, %lld); it must have at least one probe, point and column", probes, each,
             dimension);
    if (extent(references, 1) != dimension)
        fail("references has %lld columns; it must have %lld, as points has", extent(references, 1), dimension);
    if (groups < 1 || groups % probes != 0)
        fail("offsets has length %lld; it must be probes * candidates + 1, with %lld probes", groups + 1, probes);
    const long long candidates = groups / probes;
    if (content) check_shape("content", *content, probes, dimension);
    if (priors != 1 && priors != probes)
        fail("advantage has length %lld; it must have 1, or %lld, one for each probe", priors, probes);
    check_prior("weights", weights, priors, candidates);
    check_prior("spreads", spreads, priors, candidates);
    if (means) {
        check_prior("means", *means, priors, candidates);
        if (extent(*means, 2) != dimension)
            fail("means has %lld columns; it must have %lld, as points has", extent(*means, 2), dimension);
    }
    if (!(energy > 0.0)) fail("energy is %g; it must be more than 0", energy);
    if (extent(scores, 0) != probes || extent(scores, 1) != each || extent(scores, 2) != candidates)
        fail("scores has shape (%lld, %lld, %lld); it must have (%lld, %lld, %lld)", extent(scores, 0),
             extent(scores, 1), extent(scores, 2), probes, each, candidates);
    check_shape("consistency", consistency, probes, each);
    return {.points = points.data(),
            .references = references.data(),
            .rows = rows.data(),
            .offsets = offsets.data(),
            .content = content ? content->data() : nullptr,
            .means = means ? means->data() : nullptr,
            .weights = weights.data(),
            .spreads = spreads.data(),
            .advantage = advantage.data(),
            .probe_count = probes,
            .point_count = each,
            .candidate_count = candidates,
            .reference_count = extent(references, 0),
            .row_count = extent(rows, 0),
            .prior_count = priors,
            .dimension = dimension,
            .energy = energy,
            .scores = scores.data(),
            .consistency = consistency.data()};
}

}  // namespace resynth::bindings
