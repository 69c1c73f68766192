// The arithmetic of math.h on the compiler's vectors: functions that are not operators, and the loop over a row.
#pragma once

#include <cstring>

#include "noise/math.h"

namespace resynth {
namespace {

template <class Vectors>
struct ManyLanes : Vectors {
    using typename Vectors::Floats;
    using typename Vectors::Ints;
    using typename Vectors::Words;

    static Floats from(Ints x) { return __builtin_convertvector(x, Floats); }
    static Floats from(Words x) { return __builtin_convertvector(x, Floats); }
    static Words bits_of(Floats x) { return (Words)x; }
    static Floats of_bits(Words bits) { return (Floats)bits; }
};

template <class Lanes>
void noise_row(uint64_t seed, uint32_t call, int64_t elements, float* out) {
    constexpr int count = sizeof(typename Lanes::Words) / sizeof(uint32_t), normals_at_once = 4 * count;
    typename Lanes::Words block;
    for (int lane = 0; lane < count; ++lane) block[lane] = lane;
    for (int64_t i = 0; i < elements; i += normals_at_once, block += count) {
        typename Lanes::Floats four[4];
        normals<Lanes>(seed, call, block, four);
        if (elements - i >= normals_at_once) {
            Lanes::interleave(four, out + i);
        } else {
            float last[normals_at_once];
            Lanes::interleave(four, last);
            std::memcpy(out + i, last, (elements - i) * sizeof(float));
        }
    }
}

}  // namespace
}  // namespace resynth
