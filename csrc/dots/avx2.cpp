#include <immintrin.h>

#include "dots/tile.h"

namespace resynth {
namespace {

alignas(32) constexpr int32_t window[24] = {0,  0,  0,  0,  0, 0, 0, 0, -1, -1, -1, -1,
                                            -1, -1, -1, -1, 0, 0, 0, 0, 0,  0,  0,  0};
alignas(32) constexpr int32_t turns[16] = {0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4, 5, 6, 7};

__m256i integers(const int32_t* from) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)); }

struct Avx2 {
    using Lanes = __m256;
    static constexpr int lanes = 8, rows = 4, queries = 3;  // 12 sums, 3 queries and 1 row: all 16 registers

    static Lanes zero() { return _mm256_setzero_ps(); }
    static Lanes load(const float* from) { return _mm256_loadu_ps(from); }
    static Lanes load(const Bfloat16* from) { return widen(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))); }
    static Lanes load(const float* row, int from, int to) {
        return _mm256_maskload_ps(row, _mm256_and_si256(integers(window + 8 - from), integers(window + 16 - to)));
    }
    static Lanes load(const Bfloat16* row, int from, int to) {
        alignas(16) Bfloat16 part[lanes] = {};
        for (int lane = from; lane < to; ++lane) part[lane] = row[lane];
        return widen(_mm_load_si128(reinterpret_cast<const __m128i*>(part)));
    }
    static Lanes keep(Lanes v) {  // in a register: GCC loads again for each sum, and loads are what is scarce
        asm("" : "+x"(v));
        return v;
    }
    static Lanes multiply_add(Lanes a, Lanes b, Lanes c) { return _mm256_fmadd_ps(a, b, c); }
    static Lanes rotate(Lanes v, int by) { return _mm256_permutevar8x32_ps(v, integers(turns + by)); }
    static float sum(Lanes v) {
        __m128 half = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
        half = _mm_add_ps(half, _mm_movehl_ps(half, half));
        return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
    }

 private:
    static Lanes widen(__m128i halves) {
        return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
    }
};

}  // namespace

template <>
DotKernels<float> dots_avx2() {
    return dot_kernels<Avx2, float>();
}
template <>
DotKernels<Bfloat16> dots_avx2() {
    return dot_kernels<Avx2, Bfloat16>();
}

}  // namespace resynth
