// Of GCC's own header, which means its undefined vectors.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>

#include "dots/tile.h"

namespace resynth {
namespace {

alignas(64) constexpr int32_t turns[32] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
                                           0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

__mmask32 between(int from, int to) { return static_cast<__mmask32>((uint64_t{1} << to) - (uint64_t{1} << from)); }

struct Avx512 {
    using Lanes = __m512;
    static constexpr int lanes = 16, rows = 8, queries = 3,
                         rows_alone = 12;  // 24 sums, 3 queries and 1 row of 32 registers

    template <int count>
    struct Pack {
        Lanes part[count];
    };

    static Lanes zero() { return _mm512_setzero_ps(); }
    static Lanes multiply_add(Lanes a, Lanes b, Lanes c) { return _mm512_fmadd_ps(a, b, c); }

    static Pack<1> row(const float* from) { return {keep(_mm512_loadu_ps(from))}; }
    static Pack<1> row(const float* row, int from, int to) {
        return {_mm512_maskz_loadu_ps(static_cast<__mmask16>(between(from, to)), row)};
    }
    static Pack<2> row(const Bfloat16* from) { return pair(_mm512_loadu_si512(from)); }
    static Pack<2> row(const Bfloat16* row, int from, int to) {
        return pair(_mm512_maskz_loadu_epi16(between(from, to), row));
    }

    template <class Row>
    static Pack<parts<Row>> query(const float* from) {
        if constexpr (parts<Row> == 1)
            return row(from);
        else
            return sorted(_mm512_loadu_ps(from), _mm512_loadu_ps(from + lanes));
    }
    template <class Row>
    static Pack<parts<Row>> query(const float* x, int from, int to) {
        const auto some = [x, mask = between(from, to)](int half) {
            return _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask >> half * lanes), x + half * lanes);
        };
        if constexpr (parts<Row> == 1)
            return {some(0)};
        else
            return sorted(some(0), some(1));
    }

    static Lanes rotate(Lanes v, int by) { return _mm512_permutexvar_ps(_mm512_loadu_si512(turns + by), v); }
    static float sum(Lanes v) {
        const __m256 quarter = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
        __m128 half = _mm_add_ps(_mm256_castps256_ps128(quarter), _mm256_extractf128_ps(quarter, 1));
        half = _mm_add_ps(half, _mm_movehl_ps(half, half));
        return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
    }

 private:
    static Lanes keep(Lanes v) {  // in a register: GCC would load again for each sum, and loads are what is scarce
        asm("" : "+v"(v));
        return v;
    }
    static Pack<2> pair(__m512i halves) {
        return {_mm512_castsi512_ps(_mm512_slli_epi32(halves, 16)),
                _mm512_castsi512_ps(_mm512_and_si512(halves, _mm512_set1_epi32(static_cast<int>(0xffff0000))))};
    }
    static Pack<2> sorted(Lanes low, Lanes high) {
        const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
        const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
        return {_mm512_permutex2var_ps(low, even, high), _mm512_permutex2var_ps(low, odd, high)};
    }
};

}  // namespace

template <>
DotKernels<float> dots_avx512() {
    return dot_kernels<Avx512, float>();
}
template <>
DotKernels<Bfloat16> dots_avx512() {
    return dot_kernels<Avx512, Bfloat16>();
}

}  // namespace resynth
