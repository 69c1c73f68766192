#include <cstring>

#include "dots/tile.h"

namespace resynth {
namespace {

// The compiler's vectors, which every processor's base instruction set supports. A plain loop is several times slower:
// the compiler may not reorder a float sum, and it turns a loop over lanes into shuffles.
struct Serial {
    using Lanes = float __attribute__((vector_size(16)));
    static constexpr int lanes = 4, rows = 4, queries = 2, rows_alone = 4;

    static Lanes zero() { return Lanes{}; }
    static Lanes multiply_add(Lanes a, Lanes b, Lanes c) { return a * b + c; }

    static Lanes row(const float* from) { return load<Lanes>(from); }
    static Lanes row(const Half* from) { return Lanes{value(from[0]), value(from[1]), value(from[2]), value(from[3])}; }
    template <class Row>
    static Lanes row(const Row* row, int from, int to) {
        Row some[lanes] = {};
        for (int i = from; i < to; ++i) some[i] = row[i];
        return Serial::row(some);
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
DotKernels<Half> dots_serial() {
    return dot_kernels<Serial, Half>();
}

}  // namespace resynth
