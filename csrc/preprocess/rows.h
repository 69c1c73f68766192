// The inner loops of resampling and of the JPEG round trip, which each instruction set implements in a file of its own.
#pragma once

#include <stdint.h>

#include "preprocess/jpeg.h"

namespace resynth {

constexpr int64_t strip_rows = 32;  // rows resampled together along their length, one per lane

struct PreprocessKernels {
    // out[i] = sum over k of weights[k] * rows[k * step + i], rounded and clipped, for i < count.
    void (*blend)(const uint8_t* rows, int64_t step, const int32_t* weights, int64_t taps, int64_t count, uint8_t* out);
    // to[column * to_step + row] = from[row * from_step + column].
    void (*transpose)(const uint8_t* from, int64_t from_step, int64_t rows, int64_t columns, uint8_t* to,
                      int64_t to_step);
    // Eight rows of samples, `step` apart, through DCT and quantiser, in place. `lanes`: of 128 * blocks numbers.
    void (*round_trip)(uint8_t* samples, int64_t step, int64_t blocks, const int32_t* quantisers, int32_t* lanes);
};

PreprocessKernels preprocess_kernels();  // those of isa() (dispatch.h)
PreprocessKernels preprocess_serial();
PreprocessKernels preprocess_avx2();

// Plain forms. An instruction set compiles them again if its flags alone make them faster.
namespace {

inline void blend_plain(const uint8_t* rows, int64_t step, const int32_t* weights, int64_t taps, int64_t count,
                        uint8_t* out) {
    constexpr int64_t chunk = 256;
    int32_t sums[chunk];
    for (int64_t begin = 0; begin < count; begin += chunk) {
        const int64_t length = count - begin < chunk ? count - begin : chunk;
        for (int64_t i = 0; i < length; ++i) sums[i] = fixed_half;
        for (int64_t k = 0; k < taps; ++k) {
            const uint8_t* row = rows + k * step + begin;
            const int32_t weight = weights[k];
            for (int64_t i = 0; i < length; ++i) sums[i] += row[i] * weight;
        }
        for (int64_t i = 0; i < length; ++i) out[begin + i] = to_byte(sums[i] >> weight_bits);
    }
}

inline void transpose_plain(const uint8_t* from, int64_t from_step, int64_t rows, int64_t columns, uint8_t* to,
                            int64_t to_step) {
    for (int64_t column = 0; column < columns; ++column)
        for (int64_t row = 0; row < rows; ++row) to[column * to_step + row] = from[row * from_step + column];
}

inline void round_trip_plain(uint8_t* samples, int64_t step, int64_t blocks, const int32_t* quantisers,
                             int32_t* lanes) {
    int32_t *a = lanes, *b = lanes + 64 * blocks;  // (position, block): a block a lane
    for (int y = 0; y < 8; ++y)
        for (int x = 0; x < 8; ++x)
            for (int64_t i = 0; i < blocks; ++i) a[(8 * y + x) * blocks + i] = samples[y * step + 8 * i + x];
    for (int y = 0; y < 8; ++y) {
#pragma omp simd
        for (int64_t i = 0; i < blocks; ++i)
            forward_dct8(a + 8 * y * blocks + i, blocks, 128, false, b + 8 * y * blocks + i, blocks);
    }
#pragma omp simd
    for (int64_t i = 0; i < 8 * blocks; ++i) forward_dct8(b + i, 8 * blocks, 0, true, a + i, 8 * blocks);
    for (int k = 0; k < 64; ++k) {
        const int32_t quantiser = quantisers[k];
#pragma omp simd
        for (int64_t i = 0; i < blocks; ++i) a[k * blocks + i] = through_quantiser(a[k * blocks + i], quantiser);
    }
#pragma omp simd
    for (int64_t i = 0; i < 8 * blocks; ++i) inverse_dct8(a + i, 8 * blocks, false, b + i, 8 * blocks);
    for (int y = 0; y < 8; ++y) {
#pragma omp simd
        for (int64_t i = 0; i < blocks; ++i)
            inverse_dct8(b + 8 * y * blocks + i, blocks, true, a + 8 * y * blocks + i, blocks);
    }
    for (int y = 0; y < 8; ++y)
        for (int x = 0; x < 8; ++x)
            for (int64_t i = 0; i < blocks; ++i)
                samples[y * step + 8 * i + x] = to_byte(a[(8 * y + x) * blocks + i] + 128);
}

}  // namespace
}  // namespace resynth
