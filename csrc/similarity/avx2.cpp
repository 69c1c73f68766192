#include <immintrin.h>

#include "similarity/moments.h"

namespace resynth {
namespace {

constexpr int lanes = 8;
constexpr int unroll = 4;  // covers the latency of a fused multiply-add (4 cycles, two a cycle, two chains)

float sum(__m256 v) {
    __m128 half = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    half = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}

__m256i first(int64_t count) {  // lanes 0 … count - 1 of a masked load
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

}  // namespace

Moments<float> moments_avx2(const float* x, const float* y, int64_t dimension) {
    __m256 dot[unroll], yy[unroll];
    for (int k = 0; k < unroll; ++k) dot[k] = yy[k] = _mm256_setzero_ps();
    const auto add = [&](int k, __m256 xs, __m256 ys) {
        dot[k] = _mm256_fmadd_ps(xs, ys, dot[k]);
        yy[k] = _mm256_fmadd_ps(ys, ys, yy[k]);
    };
    int64_t i = 0;
    for (; i + unroll * lanes <= dimension; i += unroll * lanes)
        for (int k = 0; k < unroll; ++k) add(k, _mm256_loadu_ps(x + i + k * lanes), _mm256_loadu_ps(y + i + k * lanes));
    for (; i + lanes <= dimension; i += lanes) add(0, _mm256_loadu_ps(x + i), _mm256_loadu_ps(y + i));
    if (i < dimension) {
        const __m256i tail = first(dimension - i);
        add(1, _mm256_maskload_ps(x + i, tail), _mm256_maskload_ps(y + i, tail));
    }
    return {sum(_mm256_add_ps(_mm256_add_ps(dot[0], dot[1]), _mm256_add_ps(dot[2], dot[3]))),
            sum(_mm256_add_ps(_mm256_add_ps(yy[0], yy[1]), _mm256_add_ps(yy[2], yy[3])))};
}

}  // namespace resynth
