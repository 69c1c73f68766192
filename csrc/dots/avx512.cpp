// GCC warns about the deliberately undefined vectors of its own header.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>

#include "dots/tile.h"

namespace resynth {
namespace {

alignas(64) constexpr int32_t turns[32] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
                                           0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

__mmask16 between(int from, int to) { return static_cast<__mmask16>((1u << to) - (1u << from)); }

struct Avx512 {
    using Lanes = __m512;
    static constexpr int lanes = 16, rows = 8, queries = 3,
                         rows_alone = 12;  // 24 sums, 3 queries and 1 row of 32 registers

    static Lanes zero() { return _mm512_setzero_ps(); }
    static Lanes multiply_add(Lanes a, Lanes b, Lanes c) { return _mm512_fmadd_ps(a, b, c); }

    static Lanes row(const float* from) { return keep(_mm512_loadu_ps(from)); }
    static Lanes row(const float* row, int from, int to) { return _mm512_maskz_loadu_ps(between(from, to), row); }
    static Lanes row(const Half* from) {
        return keep(_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))));
    }
    static Lanes row(const Half* row, int from, int to) {
        return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(between(from, to), row));
    }

    static Lanes rotate(Lanes v, int by) { return _mm512_permutexvar_ps(_mm512_loadu_si512(turns + by), v); }
    static float sum(Lanes v) {
        const __m256 quarter = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
        __m128 half = _mm_add_ps(_mm256_castps256_ps128(quarter), _mm256_extractf128_ps(quarter, 1));
        half = _mm_add_ps(half, _mm_movehl_ps(half, half));
        return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
    }

 private:
    static Lanes keep(Lanes v) {  // in a register: GCC would reload it for each sum, and loads are the bottleneck
        asm("" : "+v"(v));
        return v;
    }
};

}  // namespace

template <>
DotKernels<float> dots_avx512() {
    return dot_kernels<Avx512, float>();
}
template <>
DotKernels<Half> dots_avx512() {
    return dot_kernels<Avx512, Half>();
}

}  // namespace resynth
