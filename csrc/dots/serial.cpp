#include <cstring>

#include "dots/tile.h"

namespace resynth {
namespace {

// The compiler's own vectors: every processor's base instruction set has them. Left to itself it may not reorder a
// float sum, and of a loop over lanes it makes shuffles, several times slower.
struct Serial {
    using Lanes = float __attribute__((vector_size(16)));
    static constexpr int lanes = 4, rows = 4, queries = 2;

    static Lanes zero() { return Lanes{}; }
    static Lanes load(const float* from) {
        Lanes value;
        std::memcpy(&value, from, sizeof value);
        return value;
    }
    static Lanes load(const Bfloat16* from) {
        return Lanes{value(from[0]), value(from[1]), value(from[2]), value(from[3])};
    }
    template <class Row>
    static Lanes load(const Row* row, int from, int to) {
        Lanes result{};
        for (int lane = from; lane < to; ++lane) result[lane] = value(row[lane]);
        return result;
    }
    static Lanes keep(Lanes v) { return v; }
    static Lanes multiply_add(Lanes a, Lanes b, Lanes c) { return a * b + c; }
    static Lanes rotate(Lanes v, int by) {
        const Lanes turned{v[by % 4], v[(by + 1) % 4], v[(by + 2) % 4], v[(by + 3) % 4]};
        return turned;
    }
    static float sum(Lanes v) { return (v[0] + v[1]) + (v[2] + v[3]); }
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
