// The k nearest rows of a gallery for every query, exact.
#pragma once

#include <cstdint>

namespace resynth {

enum class Metric : int32_t { dot, cosine };
enum class Storage : int32_t { float32, bfloat16 };

// Raw pointers, C order, caller-owned.
struct TopKArgs {
    const float* queries;  // (Q, d)
    const void* gallery;   // (N, d) of `storage`
    Storage storage;
    Metric metric;
    int64_t query_count;  // Q >= 1
    int64_t row_count;    // N >= 0
    int64_t dimension;    // d >= 1
    int64_t k;            // 0 <= k <= N

    float* scores;     // (Q, k), the highest first; a lower index goes before on a tie
    int64_t* indices;  // (Q, k), rows of the gallery
};

// What cannot be ranked; the outputs are then unspecified.
struct TopKFault {
    enum class Where : int32_t { nowhere, queries, gallery, product } where;
    int64_t query;
    int64_t row;
};

// Runs on the calling thread with the kernel of isa() (dispatch.h); allocates nothing, reads the gallery once for 64
// queries.
TopKFault topk(const TopKArgs& args);

}  // namespace resynth
