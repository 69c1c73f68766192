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

    template <int count>
    struct Pack {
        Lanes part[count];
    };

    static Lanes zero() { return _mm256_setzero_ps(); }
    static Lanes multiply_add(Lanes a, Lanes b, Lanes c) { return _mm256_fmadd_ps(a, b, c); }

    static Pack<1> row(const float* from) { return {keep(_mm256_loadu_ps(from))}; }
    static Pack<1> row(const float* row, int from, int to) {
        from = std::clamp(from, 0, lanes), to = std::clamp(to, 0, lanes);
        return {_mm256_maskload_ps(
            row, _mm256_and_si256(integers(window + lanes - from), integers(window + 2 * lanes - to)))};
    }
    static Pack<2> row(const Bfloat16* from) { return pair(integers(from)); }
    static Pack<2> row(const Bfloat16* row, int from, int to) {
        alignas(32) Bfloat16 some[2 * lanes] = {};
        for (int i = from; i < to; ++i) some[i] = row[i];
        return pair(integers(some));
    }

    template <class Row>
    static Pack<parts<Row>> query(const float* from) {
        if constexpr (parts<Row> == 1)
            return row(from);
        else
            return sorted(_mm256_loadu_ps(from), _mm256_loadu_ps(from + lanes));
    }
    template <class Row>
    static Pack<parts<Row>> query(const float* x, int from, int to) {
        if constexpr (parts<Row> == 1)
            return row(x, from, to);
        else
            return sorted(row(x, from, to).part[0], row(x + lanes, from - lanes, to - lanes).part[0]);
    }

    static Lanes rotate(Lanes v, int by) { return _mm256_permutevar8x32_ps(v, integers(turns + by)); }
    static float sum(Lanes v) {
        __m128 half = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
        half = _mm_add_ps(half, _mm_movehl_ps(half, half));
        return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
    }

 private:
    static Lanes keep(Lanes v) {  // in a register: GCC would load again for each sum, and loads are what is scarce
        asm("" : "+x"(v));
        return v;
    }
    static Pack<2> pair(__m256i halves) {
        return {_mm256_castsi256_ps(_mm256_slli_epi32(halves, 16)),
                _mm256_castsi256_ps(_mm256_and_si256(halves, _mm256_set1_epi32(static_cast<int>(0xffff0000))))};
    }
    static Pack<2> sorted(Lanes low, Lanes high) {
        const __m256d even = _mm256_castps_pd(_mm256_shuffle_ps(low, high, 0b10001000));  // of each half of a register
        const __m256d odd = _mm256_castps_pd(_mm256_shuffle_ps(low, high, 0b11011101));
        return {_mm256_castpd_ps(_mm256_permute4x64_pd(even, 0b11011000)),
                _mm256_castpd_ps(_mm256_permute4x64_pd(odd, 0b11011000))};
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
