#include <immintrin.h>

#include "preprocess/rows.h"

namespace resynth {
namespace {

constexpr int lanes = 8;

// The sums, `vectors` of eight, stay in registers for all taps.
template <int vectors>
inline void blend_block(const uint8_t* rows, int64_t step, const int32_t* weights, int64_t taps, uint8_t* out) {
    __m256i sums[vectors];
    for (int v = 0; v < vectors; ++v) sums[v] = _mm256_set1_epi32(fixed_half);
    for (int64_t k = 0; k < taps; ++k) {
        const __m256i weight = _mm256_set1_epi32(weights[k]);
        const uint8_t* row = rows + k * step;
        for (int v = 0; v < vectors; ++v) {
            const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(row + v * lanes));
            sums[v] = _mm256_add_epi32(sums[v], _mm256_mullo_epi32(_mm256_cvtepu8_epi32(bytes), weight));
        }
    }
    for (int v = 0; v < vectors; ++v) {
        const __m256i value = _mm256_srai_epi32(sums[v], weight_bits);
        const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(value), _mm256_extracti128_si256(value, 1));
        _mm_storel_epi64(reinterpret_cast<__m128i*>(out + v * lanes), _mm_packus_epi16(words, words));
    }
}

void blend(const uint8_t* rows, int64_t step, const int32_t* weights, int64_t taps, int64_t count, uint8_t* out) {
    constexpr int vectors = 4;
    int64_t i = 0;
    for (; i + vectors * lanes <= count; i += vectors * lanes)
        blend_block<vectors>(rows + i, step, weights, taps, out + i);
    for (; i + lanes <= count; i += lanes) blend_block<1>(rows + i, step, weights, taps, out + i);
    if (i < count) blend_plain(rows + i, step, weights, taps, count - i, out + i);
}

// Bytes of 16 rows and 16 columns: four rounds of interleaving row r with row r + 8.
inline void transpose16(const uint8_t* from, int64_t from_step, uint8_t* to, int64_t to_step) {
    __m128i a[16], b[16];
    for (int r = 0; r < 16; ++r) a[r] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + r * from_step));
    for (int round = 0; round < 4; ++round) {
        for (int r = 0; r < 8; ++r) {
            b[2 * r] = _mm_unpacklo_epi8(a[r], a[r + 8]);
            b[2 * r + 1] = _mm_unpackhi_epi8(a[r], a[r + 8]);
        }
        for (int r = 0; r < 16; ++r) a[r] = b[r];
    }
    for (int r = 0; r < 16; ++r) _mm_storeu_si128(reinterpret_cast<__m128i*>(to + r * to_step), a[r]);
}

void transpose(const uint8_t* from, int64_t from_step, int64_t rows, int64_t columns, uint8_t* to, int64_t to_step) {
    int64_t row = 0;
    for (; row + 16 <= rows; row += 16) {
        const uint8_t* line = from + row * from_step;
        int64_t column = 0;
        for (; column + 16 <= columns; column += 16)
            transpose16(line + column, from_step, to + column * to_step + row, to_step);
        transpose_plain(line + column, from_step, 16, columns - column, to + column * to_step + row, to_step);
    }
    transpose_plain(from + row * from_step, from_step, rows - row, columns, to + row, to_step);
}

}  // namespace

PreprocessKernels preprocess_avx2() { return {blend, transpose, round_trip_plain}; }

}  // namespace resynth
