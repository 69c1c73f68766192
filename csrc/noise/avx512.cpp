// GCC warns about the deliberately undefined operand inside its own AVX-512 intrinsics (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"

#include <immintrin.h>

#include "noise/lanes.h"
#include "noise/rows.h"

namespace resynth {
namespace {

struct SixteenVectors {
    using Floats = float __attribute__((vector_size(64)));
    using Words = uint32_t __attribute__((vector_size(64)));
    using Ints = int32_t __attribute__((vector_size(64)));

    static Floats sqrt(Floats x) { return _mm512_sqrt_ps(x); }

    static void multiply(Words x, uint32_t factor, Words& high, Words& low) {
        const __m512i all = (__m512i)x, by = _mm512_set1_epi32(static_cast<int>(factor));
        const __m512i even = _mm512_mul_epu32(all, by), odd = _mm512_mul_epu32(_mm512_srli_epi64(all, 32), by);
        high = (Words)_mm512_mask_mov_epi32(_mm512_srli_epi64(even, 32), 0xAAAA, odd);
        low = (Words)_mm512_mask_mov_epi32(even, 0xAAAA, _mm512_slli_epi64(odd, 32));
    }

    // out[4 lane + k] ← four[k][lane]
    static void interleave(const Floats (&four)[4], float* out) {
        const __m512 low01 = _mm512_unpacklo_ps(four[0], four[1]), high01 = _mm512_unpackhi_ps(four[0], four[1]);
        const __m512 low23 = _mm512_unpacklo_ps(four[2], four[3]), high23 = _mm512_unpackhi_ps(four[2], four[3]);
        // The four normals of a counter are 128 bits. Quarter k of `every_n` belongs to lane 4 k + n.
        const __m512 every_0 = _mm512_shuffle_ps(low01, low23, 0x44), every_1 = _mm512_shuffle_ps(low01, low23, 0xEE);
        const __m512 every_2 = _mm512_shuffle_ps(high01, high23, 0x44);
        const __m512 every_3 = _mm512_shuffle_ps(high01, high23, 0xEE);
        const auto store = [out](int at, __m512 from01, __m512 from23) {
            _mm512_storeu_ps(out + at, _mm512_shuffle_f32x4(from01, from23, 0x88));
            _mm512_storeu_ps(out + at + 16, _mm512_shuffle_f32x4(from01, from23, 0xDD));
        };
        store(0, _mm512_shuffle_f32x4(every_0, every_1, 0x44), _mm512_shuffle_f32x4(every_2, every_3, 0x44));
        store(32, _mm512_shuffle_f32x4(every_0, every_1, 0xEE), _mm512_shuffle_f32x4(every_2, every_3, 0xEE));
    }
};

}  // namespace

void noise_avx512(uint64_t seed, uint32_t call, int64_t elements, float* out) {
    noise_row<ManyLanes<SixteenVectors>>(seed, call, elements, out);
}

}  // namespace resynth
