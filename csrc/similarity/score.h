// What differs between instruction sets: one function, one file each.
#pragma once

#include "resynth/score.h"

namespace resynth {

constexpr int64_t score_lanes = 8;    // columns whose sums run side by side, on every instruction set
constexpr int64_t score_block = 256;  // columns at a time: a probe's references stay in the second cache

// Numbers of scratch memory for a probe with so many references, cleared by the kernel.
inline int64_t score_scratch(const ScoreArgs& args, int64_t references) {
    const int64_t c = args.candidate_count, n = args.point_count;
    return score_lanes * (3 * references + 2 * c + 3 * n * c + 2 * n) + score_block * (c + 3);
}

// The results of probe p.
using ScoreKernel = void (*)(const ScoreArgs& args, int64_t p, double* scratch);

void score_serial(const ScoreArgs& args, int64_t p, double* scratch);
void score_avx2(const ScoreArgs& args, int64_t p, double* scratch);
void score_avx512(const ScoreArgs& args, int64_t p, double* scratch);

}  // namespace resynth
