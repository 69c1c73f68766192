#include <cstring>

#include "similarity/moments.h"

namespace resynth {
namespace {

// The compiler's own vectors: every processor's base instruction set has them. Left to itself it may not reorder a
// float sum, and of a loop over lanes it makes shuffles, several times slower.
using Lanes = float __attribute__((vector_size(16)));
constexpr int lanes = 4;

Lanes load(const float* from) {
    Lanes value;
    std::memcpy(&value, from, sizeof value);
    return value;
}

float sum(Lanes v) { return (v[0] + v[1]) + (v[2] + v[3]); }

}  // namespace

Moments<float> moments_serial(const float* x, const float* y, int64_t dimension) {
    constexpr int unroll = 2;
    Lanes dot[unroll] = {}, yy[unroll] = {};
    int64_t i = 0;
    for (; i + unroll * lanes <= dimension; i += unroll * lanes) {
        for (int k = 0; k < unroll; ++k) {
            const Lanes xs = load(x + i + k * lanes), ys = load(y + i + k * lanes);
            dot[k] += xs * ys;
            yy[k] += ys * ys;
        }
    }
    Moments<float> total{sum(dot[0] + dot[1]), sum(yy[0] + yy[1])};
    for (; i < dimension; ++i) {
        total.dot += x[i] * y[i];
        total.yy += y[i] * y[i];
    }
    return total;
}

}  // namespace resynth
