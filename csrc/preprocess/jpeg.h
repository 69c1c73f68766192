// The lossy steps of baseline JPEG as libjpeg takes them (its "islow" transforms and "fancy" upsampling), in whole
// numbers, shared by the CPU and CUDA. T. Loeffler, A. Ligtenberg, G. Moschytz: Practical fast 1-D DCT algorithms with
// 11 multiplications, ICASSP 1989.
#pragma once

#include <stdint.h>

#include "preprocess/resample.h"
#include "resynth/host_device.h"

namespace resynth {

// --- colour: fixed point with 16 bits ---

RESYNTH_HD uint8_t jpeg_luma(int32_t r, int32_t g, int32_t b) {
    return static_cast<uint8_t>((19595 * r + 38470 * g + 7471 * b + 32768) >> 16);
}
RESYNTH_HD uint8_t jpeg_cb(int32_t r, int32_t g, int32_t b) {
    return static_cast<uint8_t>((-11059 * r - 21709 * g + 32768 * b + (128 << 16) + 32767) >> 16);
}
RESYNTH_HD uint8_t jpeg_cr(int32_t r, int32_t g, int32_t b) {
    return static_cast<uint8_t>((32768 * r - 27439 * g - 5329 * b + (128 << 16) + 32767) >> 16);
}

RESYNTH_HD uint8_t jpeg_red(int32_t y, int32_t cr) { return to_byte(y + ((91881 * (cr - 128) + 32768) >> 16)); }
RESYNTH_HD uint8_t jpeg_green(int32_t y, int32_t cb, int32_t cr) {
    return to_byte(y + ((-22554 * (cb - 128) - 46802 * (cr - 128) + 32768) >> 16));
}
RESYNTH_HD uint8_t jpeg_blue(int32_t y, int32_t cb) { return to_byte(y + ((116130 * (cb - 128) + 32768) >> 16)); }

// --- chroma at half size, and back: a triangle over the nearest samples ---

// Sum of 2 x 2 samples to their mean, rounded down and up in turn along a row.
RESYNTH_HD uint8_t mean_of_four(int32_t sum, int64_t column) {
    return static_cast<uint8_t>((sum + (column % 2 ? 2 : 1)) >> 2);
}

// A column's sum, 3 parts the nearer row, in 1/4; the nearer column then takes 3 parts of those.
RESYNTH_HD int32_t column_sum(int32_t nearer_row, int32_t farther_row) { return 3 * nearer_row + farther_row; }
RESYNTH_HD uint8_t left_sample(int32_t here, int32_t left) { return static_cast<uint8_t>((3 * here + left + 8) >> 4); }
RESYNTH_HD uint8_t right_sample(int32_t here, int32_t right) {
    return static_cast<uint8_t>((3 * here + right + 7) >> 4);
}

// --- transforms: constants are cosines in 13 bits; `extra` bits are kept between the two passes ---

constexpr int dct_bits = 13, extra_bits = 2;

RESYNTH_HD int32_t descale(int32_t value, int bits) { return (value + (1 << (bits - 1))) >> bits; }

// Eight samples less `centre` to frequencies; may be the same memory. Both passes together leave a factor of 8.
template <class Input>
RESYNTH_HD void forward_dct8(const Input* in, int64_t step, int32_t centre, bool last, int32_t* out, int64_t out_step) {
    const int32_t x0 = in[0] - centre, x1 = in[step] - centre, x2 = in[2 * step] - centre, x3 = in[3 * step] - centre;
    const int32_t x4 = in[4 * step] - centre, x5 = in[5 * step] - centre, x6 = in[6 * step] - centre,
                  x7 = in[7 * step] - centre;
    const int32_t s0 = x0 + x7, s1 = x1 + x6, s2 = x2 + x5, s3 = x3 + x4;
    const int32_t d4 = x3 - x4, d5 = x2 - x5, d6 = x1 - x6, d7 = x0 - x7;
    const int32_t s03 = s0 + s3, d03 = s0 - s3, s12 = s1 + s2, d12 = s1 - s2;
    const int bits = last ? dct_bits + extra_bits : dct_bits - extra_bits;
    out[0] = last ? descale(s03 + s12, extra_bits) : (s03 + s12) * (1 << extra_bits);
    out[4 * out_step] = last ? descale(s03 - s12, extra_bits) : (s03 - s12) * (1 << extra_bits);
    const int32_t even = (d12 + d03) * 4433;
    out[2 * out_step] = descale(even + d03 * 6270, bits);
    out[6 * out_step] = descale(even - d12 * 15137, bits);

    const int32_t all = (d4 + d6 + d5 + d7) * 9633;
    const int32_t z1 = (d4 + d7) * -7373, z2 = (d5 + d6) * -20995;
    const int32_t z3 = (d4 + d6) * -16069 + all, z4 = (d5 + d7) * -3196 + all;
    out[7 * out_step] = descale(d4 * 2446 + z1 + z3, bits);
    out[5 * out_step] = descale(d5 * 16819 + z2 + z4, bits);
    out[3 * out_step] = descale(d6 * 25172 + z2 + z3, bits);
    out[1 * out_step] = descale(d7 * 12299 + z1 + z4, bits);
}

// Back; may be the same memory.
RESYNTH_HD void inverse_dct8(const int32_t* in, int64_t step, bool last, int32_t* out, int64_t out_step) {
    const int32_t c2 = in[2 * step], c6 = in[6 * step];
    const int32_t even = (c2 + c6) * 4433;
    const int32_t e2 = even - c6 * 15137, e3 = even + c2 * 6270;
    const int32_t e0 = (in[0] + in[4 * step]) * (1 << dct_bits), e1 = (in[0] - in[4 * step]) * (1 << dct_bits);
    const int32_t s0 = e0 + e3, s3 = e0 - e3, s1 = e1 + e2, s2 = e1 - e2;

    const int32_t c7 = in[7 * step], c5 = in[5 * step], c3 = in[3 * step], c1 = in[step];
    const int32_t all = (c7 + c3 + c5 + c1) * 9633;
    const int32_t z1 = (c7 + c1) * -7373, z2 = (c5 + c3) * -20995;
    const int32_t z3 = (c7 + c3) * -16069 + all, z4 = (c5 + c1) * -3196 + all;
    const int32_t d0 = c7 * 2446 + z1 + z3, d1 = c5 * 16819 + z2 + z4, d2 = c3 * 25172 + z2 + z3,
                  d3 = c1 * 12299 + z1 + z4;
    const int bits = last ? dct_bits + extra_bits + 3 : dct_bits - extra_bits;
    out[0] = descale(s0 + d3, bits);
    out[7 * out_step] = descale(s0 - d3, bits);
    out[1 * out_step] = descale(s1 + d2, bits);
    out[6 * out_step] = descale(s1 - d2, bits);
    out[2 * out_step] = descale(s2 + d1, bits);
    out[5 * out_step] = descale(s2 - d1, bits);
    out[3 * out_step] = descale(s3 + d0, bits);
    out[4 * out_step] = descale(s3 - d0, bits);
}

// To the nearest multiple of `quantiser`, halves away from zero; the forward transform leaves a factor of 8. The
// product is exact enough: the numerator is below 2^17, and half a unit away from where the whole part changes.
RESYNTH_HD int32_t through_quantiser(int32_t coefficient, int32_t quantiser) {
    const int32_t divisor = 8 * quantiser, size = coefficient < 0 ? -coefficient : coefficient;
    const float inverse = 1.0f / static_cast<float>(divisor);
    const int32_t level = static_cast<int32_t>((static_cast<float>(size + divisor / 2) + 0.5f) * inverse);
    return coefficient < 0 ? -level * quantiser : level * quantiser;
}

// Annex K of the standard, scaled as libjpeg does: quantiser of frequency k (row by row) of luma or chroma.
RESYNTH_HD int32_t jpeg_quantiser(bool chroma, int k, int quality) {
    constexpr uint8_t luma_table[64] = {16, 11, 10, 16, 24,  40,  51,  61,  12, 12, 14, 19, 26,  58,  60,  55,
                                        14, 13, 16, 24, 40,  57,  69,  56,  14, 17, 22, 29, 51,  87,  80,  62,
                                        18, 22, 37, 56, 68,  109, 103, 77,  24, 35, 55, 64, 81,  104, 113, 92,
                                        49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99};
    constexpr uint8_t chroma_rows[4][8] = {{17, 18, 24, 47, 99, 99, 99, 99},
                                           {18, 21, 26, 66, 99, 99, 99, 99},
                                           {24, 26, 56, 99, 99, 99, 99, 99},
                                           {47, 66, 99, 99, 99, 99, 99, 99}};
    const int32_t base = !chroma ? luma_table[k] : k < 32 ? chroma_rows[k / 8][k % 8] : 99;
    const int32_t percent = quality < 50 ? 5000 / quality : 200 - 2 * quality;
    const int32_t scaled = (base * percent + 50) / 100;
    return scaled < 1 ? 1 : scaled > 255 ? 255 : scaled;
}

}  // namespace resynth
