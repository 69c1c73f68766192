#include <immintrin.h>

#include "noise/lanes.h"
#include "noise/rows.h"

namespace resynth {
namespace {

struct EightVectors {
    using Floats = float __attribute__((vector_size(32)));
    using Words = uint32_t __attribute__((vector_size(32)));
    using Ints = int32_t __attribute__((vector_size(32)));

    static Floats sqrt(Floats x) { return _mm256_sqrt_ps(x); }

    static void multiply(Words x, uint32_t factor, Words& high, Words& low) {
        const __m256i all = (__m256i)x, by = _mm256_set1_epi32(static_cast<int>(factor));
        const __m256i even = _mm256_mul_epu32(all, by), odd = _mm256_mul_epu32(_mm256_srli_epi64(all, 32), by);
        high = (Words)_mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0b10101010);
        low = (Words)_mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0b10101010);
    }

    // out[4 lane + k] ← four[k][lane]
    static void interleave(const Floats (&four)[4], float* out) {
        const __m256 low01 = _mm256_unpacklo_ps(four[0], four[1]), high01 = _mm256_unpackhi_ps(four[0], four[1]);
        const __m256 low23 = _mm256_unpacklo_ps(four[2], four[3]), high23 = _mm256_unpackhi_ps(four[2], four[3]);
        const __m256 lanes04 = _mm256_shuffle_ps(low01, low23, 0x44), lanes15 = _mm256_shuffle_ps(low01, low23, 0xEE);
        const __m256 lanes26 = _mm256_shuffle_ps(high01, high23, 0x44);
        const __m256 lanes37 = _mm256_shuffle_ps(high01, high23, 0xEE);
        _mm256_storeu_ps(out, _mm256_permute2f128_ps(lanes04, lanes15, 0x20));
        _mm256_storeu_ps(out + 8, _mm256_permute2f128_ps(lanes26, lanes37, 0x20));
        _mm256_storeu_ps(out + 16, _mm256_permute2f128_ps(lanes04, lanes15, 0x31));
        _mm256_storeu_ps(out + 24, _mm256_permute2f128_ps(lanes26, lanes37, 0x31));
    }
};

}  // namespace

void noise_avx2(uint64_t seed, uint32_t call, int64_t elements, float* out) {
    noise_row<ManyLanes<EightVectors>>(seed, call, elements, out);
}

}  // namespace resynth
