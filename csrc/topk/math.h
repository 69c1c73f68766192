// Shared by CPU and CUDA: the score of a row, and the order of two rows.
#pragma once

#include <stdint.h>

#include "dots/half.h"
#include "resynth/topk.h"

namespace resynth {

// The score of query q and row n with inner product `dot`.
template <class Real>
RESYNTH_HD Real score_of(const TopKArgs& args, int64_t q, int64_t n, Real dot) {
    const Real offset = args.offsets ? args.offsets[q] : 0.0f, weight = args.weights ? args.weights[n] : 1.0f;
    return (dot + offset) * weight;
}

// Whether (score, index) ranks before (other_score, other_index).
RESYNTH_HD bool ranks_before(float score, int64_t index, float other_score, int64_t other_index) {
    return score > other_score || (score == other_score && index < other_index);
}

}  // namespace resynth
