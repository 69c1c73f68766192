// Blocks of linear transforms: the 8 x 8 block DCT and the Haar wavelet.
#pragma once

#include "texture/select.h"

namespace resynth {
namespace {

// cos(k pi / 16) / 2, k = 1 … 7; the DC row is 1 / sqrt(8) = cos(4 pi / 16) / 2.
constexpr double c1 = 0.49039264020161522, c2 = 0.46193976625564337, c3 = 0.41573480615127262, c4 = 0.35355339059327379,
                 c5 = 0.27778511650980114, c6 = 0.19134171618254492, c7 = 0.09754516100806417;

// Orthonormal DCT-II of length 8 of `lanes` signals side by side: x_k at from + k * from_step, and so to `to`.
template <class Number>
void dct8(const Number* from, int64_t from_step, double* to, int64_t to_step, int64_t lanes) {
#pragma omp simd
    for (int64_t i = 0; i < lanes; ++i) {
        const double x0 = from[i], x1 = from[i + from_step], x2 = from[i + 2 * from_step], x3 = from[i + 3 * from_step];
        const double x4 = from[i + 4 * from_step], x5 = from[i + 5 * from_step], x6 = from[i + 6 * from_step],
                     x7 = from[i + 7 * from_step];
        const double s0 = x0 + x7, s1 = x1 + x6, s2 = x2 + x5, s3 = x3 + x4;
        const double d0 = x0 - x7, d1 = x1 - x6, d2 = x2 - x5, d3 = x3 - x4;
        to[i] = c4 * ((s0 + s3) + (s1 + s2));
        to[i + to_step] = c1 * d0 + c3 * d1 + c5 * d2 + c7 * d3;
        to[i + 2 * to_step] = c2 * (s0 - s3) + c6 * (s1 - s2);
        to[i + 3 * to_step] = c3 * d0 - c7 * d1 - c1 * d2 - c5 * d3;
        to[i + 4 * to_step] = c4 * ((s0 + s3) - (s1 + s2));
        to[i + 5 * to_step] = c5 * d0 - c1 * d1 + c7 * d2 + c3 * d3;
        to[i + 6 * to_step] = c6 * (s0 - s3) - c2 * (s1 - s2);
        to[i + 7 * to_step] = c7 * d0 - c5 * d1 + c3 * d2 - c1 * d3;
    }
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

// Sums over one detail band: of the band b and of a, the magnitudes of the finer scale's band over the same 2 x 2.
struct BandSums {
    double magnitude = 0, squares = 0, finer = 0, finer_squares = 0, both = 0;
};

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

// unit: of one grey level in the band; half of it is that of the finer scale.
inline float* write_band(const BandSums& sums, double count, double unit, bool has_finer, float* out) {
    const double mean = sums.magnitude / count / unit, squares = sums.squares / count / (unit * unit);
    const double deviation = sqrt(squares), finer_unit = unit / 2;
    *out++ = static_cast<float>(log(deviation + 0.05));
    *out++ = static_cast<float>(log((mean + 0.02) / (deviation + 0.02)));
    if (!has_finer) return out;
    const double finer = sums.finer / count / finer_unit;
    const double finer_spread = sums.finer_squares / count / (finer_unit * finer_unit) - finer * finer;
    const double spread = squares - mean * mean, shared = sums.both / count / (unit * finer_unit) - mean * finer;
    const double spreads = (finer_spread > 0 ? finer_spread : 0) * (spread > 0 ? spread : 0);
    *out++ = static_cast<float>(shared / (sqrt(spreads) + 1e-3));
    return out;
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
