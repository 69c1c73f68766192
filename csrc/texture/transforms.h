// Blocks of linear transforms: the 8 x 8 block DCT and the Haar wavelet.
#pragma once

#include "texture/select.h"

namespace resynth {
namespace {

// `lanes` signals side by side: x_k at from + k * from_step, and so to `to`.
template <class Number>
void dct8(const Number* from, int64_t from_step, double* to, int64_t to_step, int64_t lanes) {
#pragma omp simd
    for (int64_t i = 0; i < lanes; ++i) cosine8(from + i, from_step, to + i, to_step);
}

// coefficients: (64, blocks), a row a frequency, in units of the plane.
inline void block_dct(Map<const int32_t> plane, double* coefficients, Arena arena) {
    const int64_t across = plane.side / 8, blocks = across * across;
    int32_t* pixels = arena.take<int32_t>(64 * across);   // (y, x, block): a block a lane
    double* half_done = arena.take<double>(64 * across);  // (v, x, block)
    for (int64_t row = 0; row < across; ++row) {
        for (int y = 0; y < 8; ++y) {
            const int32_t* line = plane.row(8 * row + y);
            for (int x = 0; x < 8; ++x)
                for (int64_t block = 0; block < across; ++block)
                    pixels[(8 * y + x) * across + block] = line[8 * block + x];
        }
        dct8(pixels, 8 * across, half_done, 8 * across, 8 * across);
        for (int v = 0; v < 8; ++v)
            dct8(half_done + 8 * v * across, across, coefficients + 8 * v * blocks + row * across, blocks, across);
    }
}

// planes: Y, Cb, Cr. out: luma's log deviations, log medians, then Cb's and Cr's log deviations.
inline void dct_energies(const Map<const int32_t>* planes, float* out, Arena arena) {
    const int64_t blocks = planes[0].side / 8 * (planes[0].side / 8);
    double* coefficients = arena.take<double>(64 * blocks);
    uint32_t* keys = arena.take<uint32_t>(blocks);
    for (int plane = 0; plane < 3; ++plane) {
        const double unit = plane == 0 ? luma_unit : chroma_unit;
        block_dct(planes[plane], coefficients, arena);
        for (int k = 0; k < 64; ++k) {
            const double* values = coefficients + k * blocks;
            out[(plane ? plane + 1 : 0) * 64 + k] =
                static_cast<float>(log(spread_of(values, blocks).deviation / unit + 1e-2));
            if (plane != 0) continue;
            for (int64_t i = 0; i < blocks; ++i) keys[i] = key_of(static_cast<float>(fabs(values[i])));
            const int64_t middle[2] = {(blocks - 1) / 2, blocks / 2};
            uint32_t found[2];
            select(keys, blocks, middle, 2, found, arena);
            const double median = (double{value_of(found[0])} + value_of(found[1])) / 2;
            out[64 + k] = static_cast<float>(log(median / unit + 0.05));
        }
    }
}

inline BandSums band_sums(const int32_t* magnitudes, Map<const int32_t> finer, int64_t side) {
    BandSums total;
    for (int64_t y = 0; y < side; ++y) {
        const int32_t* line = magnitudes + y * side;
        double magnitude = 0, squares = 0;
#pragma omp simd reduction(+ : magnitude, squares)
        for (int64_t x = 0; x < side; ++x) {
            const double b = line[x];
            magnitude += b;
            squares += b * b;
        }
        total.magnitude += magnitude;
        total.squares += squares;
        if (!finer.data) continue;
        const int32_t *above = finer.row(2 * y), *below = finer.row(2 * y + 1);
        double sum = 0, sum_squares = 0, both = 0;
#pragma omp simd reduction(+ : sum, sum_squares, both)
        for (int64_t x = 0; x < side; ++x) {
            const double a = above[2 * x] + above[2 * x + 1] + below[2 * x] + below[2 * x + 1], b = line[x];
            sum += a;
            sum_squares += a * a;
            both += a * b;
        }
        total.finer += sum;
        total.finer_squares += sum_squares;
        total.both += both;
    }
    return total;
}

// Haar detail bands of one plane, in whole numbers: level k holds sums over 4^k px, which fit as long as k <= 5.
inline float* wavelet(Map<const int32_t> plane, double unit, float* out, Arena arena) {
    Map<const int32_t> level = plane, finer[3] = {};
    const int levels = wavelet_levels(plane.side);
    for (int k = 1; k <= levels; ++k) {
        const int64_t side = level.side / 2;
        int32_t *next = arena.take<int32_t>(side * side), *bands[3];
        for (int32_t*& band : bands) band = arena.take<int32_t>(side * side);
        int32_t *first = bands[0], *second = bands[1], *third = bands[2];
        for (int64_t y = 0; y < side; ++y) {
            const int32_t *above = level.row(2 * y), *below = level.row(2 * y + 1);
            for (int64_t x = 0; x < side; ++x) {
                const int32_t p = above[2 * x], q = above[2 * x + 1], r = below[2 * x], s = below[2 * x + 1];
                const int32_t a = p - q + r - s, b = p + q - r - s, c = p - q - r + s;
                next[y * side + x] = p + q + r + s;
                first[y * side + x] = a < 0 ? -a : a;
                second[y * side + x] = b < 0 ? -b : b;
                third[y * side + x] = c < 0 ? -c : c;
            }
        }
        for (int band = 0; band < 3; ++band) {
            const BandSums sums = band_sums(bands[band], finer[band], side);
            out = write_band(sums, static_cast<double>(side * side), unit * (1 << k), k > 1, out);
            finer[band] = {bands[band], side};
        }
        level = {next, side};
    }
    return out;
}

}  // namespace
}  // namespace resynth
