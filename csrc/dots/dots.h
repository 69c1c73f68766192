// Inner products of float rows with stored rows, the inner loop of similarity and topk: one algorithm (tile.h), one
// small file for each instruction set.
#pragma once

#include <cstdint>

#include "dispatch.h"
#include "dots/half.h"

namespace resynth {

// The order of additions does not depend on other rows, their number or the alignment in memory: a pair of rows gives
// the same bits in every call. `ahead` prefetches further rows, which is a third faster if y comes from memory and a
// sixth slower if it is cached. `dots` with several queries does not need it.
template <class Row>
struct DotKernels {
    // x (d), y (count, d) → dot (count) = x · y, yy (count) = y · y; one pass over y.
    void (*moments)(const float* x, const Row* y, int64_t count, int64_t d, float* dot, float* yy, bool ahead);
    // x_q = x + q * x_stride (d), y (count, d) → dot[q * stride + n] = x_q · y_n.
    void (*dots)(const float* x, int64_t x_stride, int64_t queries, const Row* y, int64_t count, int64_t d, float* dot,
                 int64_t stride, bool ahead);
};

template <class Row>
DotKernels<Row> dots_serial();
template <class Row>
DotKernels<Row> dots_avx2();
template <class Row>
DotKernels<Row> dots_avx512();

// The functions for isa().
template <class Row>
DotKernels<Row> choose_dots() {
    using Maker = DotKernels<Row> (*)();
    constexpr Variants<Maker> variants{
        .serial = dots_serial<Row>, .avx2 = RESYNTH_ON_X86(dots_avx2<Row>), .avx512 = RESYNTH_ON_X86(dots_avx512<Row>)};
    return variants.choose()();
}

}  // namespace resynth
