// The algorithm of dots.h over the vectors of one instruction set: a tile of Q queries × R rows, all of its sums in
// registers, so that a loaded vector serves several of them.
//
// Vectors must be a type of the including file alone (unnamed namespace): two instruction sets must not share one
// instantiation. It has `lanes`, `rows` and `queries` (the tile that its registers hold), and the functions used here.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

#include "dots/dots.h"

namespace resynth {

// Elements by which y lies after the last vector boundary. Loads from the boundary on never cross a cache line; the
// lanes before y are masked. Only where every row has the same phase.
template <class Vectors, class Row>
int phase_of(const Row* y, int64_t d) {
    constexpr int64_t vector_bytes = Vectors::lanes * sizeof(Row);
    const auto address = reinterpret_cast<uintptr_t>(y);
    if (d % Vectors::lanes != 0 || address % sizeof(Row) != 0) return 0;
    return static_cast<int>(address % vector_bytes / sizeof(Row));
}

// Calls body(0) … body(count - 1) with constants. A loop would do, but for arrays that are indexed by one before it is
// unrolled GCC takes memory instead of registers.
template <int count, class Body>
[[gnu::always_inline]] inline void each(Body body) {
    [&]<int... i>(std::integer_sequence<int, i...>) __attribute__((always_inline)) {
        (body(std::integral_constant<int, i>{}), ...);
    }(std::make_integer_sequence<int, count>{});
}

template <class Vectors, int Q, int R, bool squares, class Row>
void tile(const float* x, const Row* y, int64_t d, int phase, float* dot, int64_t stride, float* yy) {
    using V = typename Vectors::Lanes;
    constexpr int lanes = Vectors::lanes;
    V dots[Q * R], square[R];
    each<R>([&](auto r) __attribute__((always_inline)) { square[r] = Vectors::zero(); });
    each<Q * R>([&](auto qr) { dots[qr] = Vectors::zero(); });

    const auto add = [&](auto load) __attribute__((always_inline)) {
        V xs[Q];
        each<Q>([&](auto q) { xs[q] = Vectors::keep(load(x + q * d)); });
        each<R>([&](auto r) __attribute__((always_inline)) {
            const V ys = Vectors::keep(load(y + r * d));
            each<Q>([&](auto q) { dots[q * R + r] = Vectors::multiply_add(xs[q], ys, dots[q * R + r]); });
            if constexpr (squares) square[r] = Vectors::multiply_add(ys, ys, square[r]);
        });
    };
    int64_t i = -phase;
    const auto part = [&](int from, int to) __attribute__((always_inline)) {
        add([&](auto* row) { return Vectors::load(row + i, from, to); });
    };
    if (phase > 0) {
        part(phase, static_cast<int>(std::min<int64_t>(lanes, phase + d)));
        i += lanes;
    }
    for (; i + lanes <= d; i += lanes) add([&](auto* row) { return Vectors::load(row + i); });
    if (i < d) part(0, static_cast<int>(d - i));

    // Lane l has summed the elements l - phase, l - phase + lanes, …: turned back, the phase leaves no trace.
    each<Q * R>([&](auto qr) { dot[qr / R * stride + qr % R] = Vectors::sum(Vectors::rotate(dots[qr], phase)); });
    if constexpr (squares)
        each<R>([&](auto r)
                    __attribute__((always_inline)) { yy[r] = Vectors::sum(Vectors::rotate(square[r], phase)); });
}

template <class Vectors, int R, class Row>
void moments(const float* x, const Row* y, int64_t count, int64_t d, float* dot, float* yy, int phase) {
    for (; count >= R; count -= R, y += R * d, dot += R, yy += R) tile<Vectors, 1, R, true>(x, y, d, phase, dot, R, yy);
    if constexpr (R > 1)
        if (count > 0) moments<Vectors, R / 2>(x, y, count, d, dot, yy, phase);
}

template <class Vectors, int R, class Row>
void dots(const float* x, int64_t queries, const Row* y, int64_t count, int64_t d, float* dot, int64_t stride,
          int phase) {
    constexpr int Q = Vectors::queries;
    for (; count >= R; count -= R, y += R * d, dot += R) {  // the rows of a tile stay in the first cache, queries pass
        int64_t q = 0;
        for (; q + Q <= queries; q += Q)
            tile<Vectors, Q, R, false>(x + q * d, y, d, phase, dot + q * stride, stride, nullptr);
        for (; q < queries; ++q) tile<Vectors, 1, R, false>(x + q * d, y, d, phase, dot + q * stride, stride, nullptr);
    }
    if constexpr (R > 1)
        if (count > 0) dots<Vectors, R / 2>(x, queries, y, count, d, dot, stride, phase);
}

template <class Vectors, class Row>
DotKernels<Row> dot_kernels() {
    return {
        .moments = [](const float* x, const Row* y, int64_t count, int64_t d, float* dot,
                      float* yy) { moments<Vectors, Vectors::rows>(x, y, count, d, dot, yy, phase_of<Vectors>(y, d)); },
        .dots =
            [](const float* x, int64_t queries, const Row* y, int64_t count, int64_t d, float* dot, int64_t stride) {
                dots<Vectors, Vectors::rows>(x, queries, y, count, d, dot, stride, phase_of<Vectors>(y, d));
            },
    };
}

}  // namespace resynth
