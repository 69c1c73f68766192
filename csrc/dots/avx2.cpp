#include <immintrin.h>

#include "dots/tile.h"

namespace resynth {
namespace {

alignas(32) constexpr int32_t window[24] = {0,  0,  0,  0,  0, 0, 0, 0, -1, -1, -1, -1,
                                            -1, -1, -1, -1, 0, 0, 0, 0, 0,  0,  0,  0};
alignas(32) constexpr int32_t turns[16] = {0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7};

__m256i integers(const void* from) { return _mm256_loadu_si256(static_cast<const __m256i*>(from)); }

struct Avx2 {
    using Lanes = __m256;
    static constexpr int lanes = 8, rows = 4, queries = 3,
                         rows_alone = 6;  // 12 sums, 3 queries and 1 row: all 16 registers

    static Lanes zero() { return _mm256_setzero_ps(); }
    static Lanes multiply_add(Lanes a, Lanes b, Lanes c) { return _mm256_fmadd_ps(a, b, c); }

    static Lanes row(const float* from) { return keep(_mm256_loadu_ps(from)); }
    static Lanes row(const float* row, int from, int to) {
        return _mm256_maskload_ps(row,
                                  _mm256_and_si256(integers(window + lanes - from), integers(window + 2 * lanes - to)));
    }
    static Lanes row(const Half* from) {
        return keep(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))));
    }
    static Lanes row(const Half* row, int from, int to) {
        Half some[lanes] = {};
        for (int i = from; i < to; ++i) some[i] = row[i];
        return Avx2::row(some);
    }

    static Lanes rotate(Lanes v, int by) { return _mm256_permutevar8x32_ps(v, integers(turns + by)); }
    static float sum(Lanes v) {
        __m128 half = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
        half = _mm_add_ps(half, _mm_movehl_ps(half, half));
        return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
    }

 private:
    static Lanes keep(Lanes v) {  // in a register: GCC would reload it for each sum, and loads are the bottleneck
        asm("" : "+x"(v));
        return v;
    }
};

}  // namespace

template <>
DotKernels<float> dots_avx2() {
    return dot_kernels<Avx2, float>();
}
template <>
DotKernels<Half> dots_avx2() {
    return dot_kernels<Avx2, Half>();
}

}  // namespace resynth
