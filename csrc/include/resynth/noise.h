// Standard normals from counters. A row depends on its own seed and model call only.
#pragma once

#include <cstdint>

namespace resynth {

// Raw pointers, C order, caller-owned.
struct NoiseArgs {
    const uint64_t* seeds;  // (rows)
    const uint32_t* calls;  // (rows) which model call of the walk; 0 is its start
    int64_t rows;
    int64_t elements;  // per row, at most 2^34: four for each value of a 32-bit counter
    float* out;        // (rows, elements)
};

// Runs on the calling thread with the kernel of isa() (dispatch.h); allocates nothing. Every instruction set, and CUDA,
// gives the same bits.
void noise(const NoiseArgs& args);

}  // namespace resynth
