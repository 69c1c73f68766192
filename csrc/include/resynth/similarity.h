// Cosine similarity of probes with ragged groups of references, reduced per candidate and ranked, in one call.
#pragma once

#include <cstdint>

namespace resynth {

enum class Reduce : int32_t { max, mean };

// Raw pointers, C order, caller-owned. Group g = p * candidates + c holds the references
// offsets[g] … offsets[g + 1] - 1 of probe p and candidate c.
struct SimilarityArgs {
    const float* probes;      // (P, d)
    const float* references;  // (N, d)
    const int64_t* offsets;   // (P * C + 1), from 0, non-decreasing, to N
    int64_t probe_count;      // P >= 1
    int64_t reference_count;  // N >= 0
    int64_t candidate_count;  // C >= 1
    int64_t dimension;        // d >= 1
    Reduce reduce;

    float* scores;  // (P, C) in [-1, 1]; -inf where the group is empty
    int64_t* best;  // (P) candidate with the highest score, the lowest index on a tie; -1 when all groups are empty
    float* margin;  // (P) best score minus the next; +inf with nothing to compare with; 0 when best is -1
};

// The first row that holds NaN or an infinity; the outputs are then unspecified.
struct NonFinite {
    enum class Where : int32_t { nowhere, probes, references } where;
    int64_t row;
};

// Runs on the calling thread with the kernel of isa() (dispatch.h); allocates nothing. `offsets` must be valid.
NonFinite similarity(const SimilarityArgs& args);

}  // namespace resynth
