// The k nearest rows of a gallery for every query, of each group of rows.
#pragma once

#include <cstdint>

namespace resynth {

enum class Storage : int32_t { float32, float16 };

constexpr int64_t topk_most_blocks = 64;

// Some columns of a gallery.
struct TopKBlock {
    const void* rows;  // (N, columns) of the call's `storage`
    int64_t columns;   // >= 1
};

// Raw pointers, C order, caller-owned. Row n scores (query · row n + offset) · weight_n.
struct TopKArgs {
    const float* queries;                // (Q, d)
    const float* offsets;                // (Q); null: 0
    TopKBlock blocks[topk_most_blocks];  // side by side they are the gallery (N, d): each may be a file of its own
    int64_t block_count;                 // 1 to topk_most_blocks
    Storage storage;
    const float* weights;   // (N); null: 1
    const int32_t* groups;  // (N), below G, negative for a row that is left out; null: every row is in group 0
    int64_t query_count;    // Q >= 1
    int64_t row_count;      // N >= 0
    int64_t dimension;      // d >= 1
    int64_t group_count;    // G >= 1
    int64_t k;              // >= 0

    float* scores;     // (Q, G, k), the highest first, a lower index before on a tie; -inf behind a group's last row
    int64_t* indices;  // (Q, G, k), rows of the gallery; -1 behind a group's last row
};

// A value that has no rank; the outputs are then unspecified.
struct TopKFault {
    enum class Where : int32_t { nowhere, queries, offsets, gallery, weights, score } where;
    int64_t query;
    int64_t row;
};

// Runs on the calling thread with the kernel of isa() (dispatch.h); reads the gallery once for 64 queries. A row that
// is left out may hold anything, NaN included.
TopKFault topk(const TopKArgs& args);

}  // namespace resynth
