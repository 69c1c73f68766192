// The weightless descriptor: statistics of pixel noise and texture of square pictures, in one call.
#pragma once

#include <cstdint>

namespace resynth {

// Raw pointers, C order, caller-owned.
struct TextureArgs {
    const uint8_t* pictures;  // (n, S, S, 3) sRGB
    int64_t count;            // n >= 0
    int64_t side;             // S >= 32, a multiple of 8, at most 4096: sums of luma must fit their integers
    float* features;          // (n, texture_dimension(S)), blocks in the order of texture/layout.h
};

int64_t texture_dimension(int64_t side);

// Runs on the calling thread with the kernel of isa() (dispatch.h); that thread keeps its scratch for the next call.
void texture(const TextureArgs& args);

}  // namespace resynth
