// The algorithm of dots.h over the vectors of one instruction set: a tile of Q queries × R rows, all of its sums in
// registers, so that a loaded vector serves several of them.
//
// `Vectors` must be local to the including file (unnamed namespace), so that two instruction sets never share one
// instantiation. It has `lanes`, `rows` and `queries` (the tile that fits its registers), `rows_alone` (the rows of a
// tile for one query, fastest from memory), and the functions used here. `row` widens rows stored narrower than float.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

#include "dots/dots.h"

namespace resynth {

// Distance of y from the last vector boundary, in elements. Loads start at the boundary, so that none crosses a cache
// line; elements before y are masked. Used only if every row has the same phase.
template <class Vectors, class Row>
int phase_of(const Row* y, int64_t d) {
    constexpr int64_t vector_bytes = Vectors::lanes * sizeof(Row);
    const auto address = reinterpret_cast<uintptr_t>(y);
    if (d % Vectors::lanes != 0 || address % sizeof(Row) != 0) return 0;
    return static_cast<int>(address % vector_bytes / sizeof(Row));
}

// Calls body(0) … body(count - 1) with constants. With a plain loop, GCC keeps arrays that the loop indexes in memory
// instead of registers.
template <int count, class Body>
[[gnu::always_inline]] inline void each(Body body) {
    [&]<int... i>(std::integer_sequence<int, i...>) __attribute__((always_inline)) {
        (body(std::integral_constant<int, i>{}), ...);
    }(std::make_integer_sequence<int, count>{});
}

template <class Vectors, int Q, int R, bool squares, bool ahead, class Row>
void tile(const float* x, int64_t x_stride, const Row* y, int64_t d, int phase, float* dot, int64_t stride, float* yy) {
    using V = typename Vectors::Lanes;
    constexpr int step = Vectors::lanes;
    V dots[Q * R], square[R];
    each<R>([&](auto r) { square[r] = Vectors::zero(); });
    each<Q * R>([&](auto qr) { dots[qr] = Vectors::zero(); });

    int64_t i = -phase;
    const auto add = [&](auto load_query, auto load_row) __attribute__((always_inline)) {
        V xs[Q];
        each<Q>([&](auto q) { xs[q] = load_query(x + q * x_stride); });
        each<R>([&](auto r) __attribute__((always_inline)) {
            const V ys = load_row(y + r * d);
            if constexpr (ahead) __builtin_prefetch(y + (R + r) * d + i, 0, 2);  // of the next tile
            each<Q>([&](auto q) { dots[q * R + r] = Vectors::multiply_add(xs[q], ys, dots[q * R + r]); });
            if constexpr (squares) square[r] = Vectors::multiply_add(ys, ys, square[r]);
        });
    };
    const auto add_some = [&](int from, int to) __attribute__((always_inline)) {
        add([&](const float* query) { return Vectors::row(query + i, from, to); },
            [&](const Row* row) { return Vectors::row(row + i, from, to); });
    };
    if (phase > 0) {
        add_some(phase, static_cast<int>(std::min<int64_t>(step, phase + d)));
        i += step;
    }
    for (; i + step <= d; i += step)
        add([&](const float* query) { return Vectors::row(query + i); },
            [&](const Row* row) { return Vectors::row(row + i); });
    if (i < d) add_some(0, static_cast<int>(d - i));

    // The phase has shifted the lanes' elements. Rotating the lanes back makes the sum independent of the phase.
    each<Q * R>([&](auto qr) { dot[qr / R * stride + qr % R] = Vectors::sum(Vectors::rotate(dots[qr], phase)); });
    if constexpr (squares) each<R>([&](auto r) { yy[r] = Vectors::sum(Vectors::rotate(square[r], phase)); });
}

template <class Vectors, int R, bool ahead, class Row>
void moments(const float* x, const Row* y, int64_t count, int64_t d, float* dot, float* yy, int phase) {
    for (; count >= R; count -= R, y += R * d, dot += R, yy += R)
        tile<Vectors, 1, R, true, ahead>(x, d, y, d, phase, dot, R, yy);
    if constexpr (R > 1)
        if (count > 0) moments<Vectors, R / 2, false>(x, y, count, d, dot, yy, phase);
}

template <class Vectors, int R, bool ahead, class Row>
void dots(const float* x, int64_t x_stride, int64_t queries, const Row* y, int64_t count, int64_t d, float* dot,
          int64_t stride, int phase) {
    constexpr int Q = ahead ? 1 : Vectors::queries;
    for (; count >= R; count -= R, y += R * d, dot += R) {  // the rows of a tile stay in the L1 cache for all queries
        int64_t q = 0;
        for (; q + Q <= queries; q += Q)
            tile<Vectors, Q, R, false, ahead>(x + q * x_stride, x_stride, y, d, phase, dot + q * stride, stride,
                                              nullptr);
        for (; q < queries; ++q)
            tile<Vectors, 1, R, false, ahead>(x + q * x_stride, x_stride, y, d, phase, dot + q * stride, stride,
                                              nullptr);
    }
    if constexpr (R > 1)
        if (count > 0) dots<Vectors, R / 2, false>(x, x_stride, queries, y, count, d, dot, stride, phase);
}

template <class Vectors, class Row>
DotKernels<Row> dot_kernels() {
    constexpr int R = Vectors::rows, alone = Vectors::rows_alone;
    return {
        .moments =
            [](const float* x, const Row* y, int64_t count, int64_t d, float* dot, float* yy, bool ahead) {
                const auto kernel = ahead ? moments<Vectors, alone, true, Row> : moments<Vectors, R, false, Row>;
                kernel(x, y, count, d, dot, yy, phase_of<Vectors>(y, d));
            },
        .dots =
            [](const float* x, int64_t x_stride, int64_t queries, const Row* y, int64_t count, int64_t d, float* dot,
               int64_t stride, bool ahead) {
                const auto kernel =
                    ahead && queries == 1 ? dots<Vectors, alone, true, Row> : dots<Vectors, R, false, Row>;
                kernel(x, x_stride, queries, y, count, d, dot, stride, phase_of<Vectors>(y, d));
            },
    };
}

}  // namespace resynth
