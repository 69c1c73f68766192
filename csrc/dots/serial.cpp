#include <cstring>

#include "dots/tile.h"

namespace resynth {
namespace {

// The compiler's own vectors: every processor's base instruction set has them. Left to itself it may not reorder a
// float sum, and of a loop over lanes it makes shuffles, several times slower.
struct Serial {
    using Lanes = float __attribute__((vector_size(16)));
    using Bits = uint32_t __attribute__((vector_size(16)));
    static constexpr int lanes = 4, rows = 4, queries = 2, rows_alone = 4;

    template <int count>
    struct Pack {
        Lanes part[count];
    };

    static Lanes zero() { return Lanes{}; }
    static Lanes multiply_add(Lanes a, Lanes b, Lanes c) { return a * b + c; }

    static Pack<1> row(const float* from) { return {load<Lanes>(from)}; }
    static Pack<2> row(const Bfloat16* from) {
        const Bits halves = load<Bits>(from);
        return {reinterpret_cast<Lanes>(halves << 16), reinterpret_cast<Lanes>(halves & 0xffff0000u)};
    }
    template <class Row>
    static Pack<parts<Row>> row(const Row* row, int from, int to) {
        Row some[lanes * parts<Row>] = {};
        for (int i = from; i < to; ++i) some[i] = row[i];
        return Serial::row(some);
    }

    template <class Row>
    static Pack<parts<Row>> query(const float* from) {
        if constexpr (parts<Row> == 1)
            return row(from);
        else
            return {Lanes{from[0], from[2], from[4], from[6]}, Lanes{from[1], from[3], from[5], from[7]}};
    }
    template <class Row>
    static Pack<parts<Row>> query(const float* x, int from, int to) {
        float some[lanes * parts<Row>] = {};
        for (int i = from; i < to; ++i) some[i] = x[i];
        return query<Row>(some);
    }

    static Lanes rotate(Lanes v, int by) { return Lanes{v[by], v[(by + 1) % 4], v[(by + 2) % 4], v[(by + 3) % 4]}; }
    static float sum(Lanes v) { return (v[0] + v[1]) + (v[2] + v[3]); }

 private:
    template <class Vector>
    static Vector load(const void* from) {
        Vector value;
        std::memcpy(&value, from, sizeof value);
        return value;
    }
};

}  // namespace

template <>
DotKernels<float> dots_serial() {
    return dot_kernels<Serial, float>();
}
template <>
DotKernels<Bfloat16> dots_serial() {
    return dot_kernels<Serial, Bfloat16>();
}

}  // namespace resynth
