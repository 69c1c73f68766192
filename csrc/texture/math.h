// The arithmetic of the texture descriptor, shared by every CPU kernel and by CUDA. Counting is done on integers, so
// that a tie between two bins falls the same way everywhere; sums are double.
#pragma once

#include <math.h>
#include <stdint.h>

#include "resynth/host_device.h"
#include "texture/layout.h"

namespace resynth {

// Luma in 1/1000, chroma in 1/10000 grey level: whole numbers.
constexpr int luma_unit = 1000, chroma_unit = 10000;

RESYNTH_HD int32_t luma_of(int32_t r, int32_t g, int32_t b) { return 299 * r + 587 * g + 114 * b; }
RESYNTH_HD int32_t cb_of(int32_t r, int32_t g, int32_t b) { return -1687 * r - 3313 * g + 5000 * b; }
RESYNTH_HD int32_t cr_of(int32_t r, int32_t g, int32_t b) { return 5000 * r - 4187 * g - 813 * b; }

// --- residuals: `at` is the top left pixel of the filter's support, `step` the distance along its direction ---

RESYNTH_HD int32_t difference1(const int32_t* at, int64_t step) { return at[step] - at[0]; }
RESYNTH_HD int32_t difference2(const int32_t* at, int64_t step) { return at[2 * step] - 2 * at[step] + at[0]; }
RESYNTH_HD int32_t difference3(const int32_t* at, int64_t step) {
    return at[3 * step] - at[0] - 3 * (at[2 * step] - at[step]);
}
RESYNTH_HD int32_t square_residual(const int32_t* at, int64_t row) {
    const int32_t *a = at, *b = at + row, *c = at + 2 * row;
    return 2 * (a[1] + c[1] + b[0] + b[2]) - 4 * b[1] - (a[0] + a[2] + c[0] + c[2]);
}

// Support along its direction and quantiser in grey levels of filter 0 … 3.
RESYNTH_HD int residual_reach(int filter) { return filter == 3 ? 2 : filter + 1; }
RESYNTH_HD int residual_quantiser(int filter) { return filter == 0 ? 1 : filter == 1 ? 2 : 4; }

// round(value / (2 half)), half to even, clipped to -2 … 2, plus 2.
RESYNTH_HD uint8_t quantise(int32_t value, int32_t half) {
    const int32_t up = (value > half) + (value >= 3 * half), down = (value < -half) + (value <= -3 * half);
    return static_cast<uint8_t>(2 + up - down);
}

// Sums over one map of residuals, in integer units.
struct ResidualSums {
    double sum = 0, magnitude = 0, squares = 0, fourths = 0;
    int64_t few = 0, many = 0;  // below 1, above 8 grey levels
};

RESYNTH_HD void write_residual(const ResidualSums& sums, double count, double unit, float* out) {
    const double mean = sums.sum / count / unit, squares = sums.squares / count / (unit * unit);
    const double spread = squares - mean * mean, variance = spread > 0 ? spread : 0;
    const double fourths = sums.fourths / count / (unit * unit * unit * unit);
    out[0] = static_cast<float>(log(sqrt(variance) + 0.1));
    out[1] = static_cast<float>(log(sums.magnitude / count / unit + 0.1));
    out[2] = static_cast<float>(log1p(fourths / ((variance + 1e-3) * (variance + 1e-3))));
    out[3] = static_cast<float>(static_cast<double>(sums.few) / count);
    out[4] = static_cast<float>(static_cast<double>(sums.many) / count);
}

// A triple and its mirror images (backwards, other sign) count as one kind: the count of bin `bin` over all of them.
RESYNTH_HD int64_t symmetric_count(const uint32_t* counts, int bin) {
    const int backwards = bin / 25 + bin / 5 % 5 * 5 + bin % 5 * 25, last = co_occurrence_bins - 1;
    return int64_t{counts[bin]} + counts[backwards] + counts[last - bin] + counts[last - backwards];
}

RESYNTH_HD float root_share(int64_t count, int64_t total) {
    return static_cast<float>(sqrt(static_cast<double>(count) / static_cast<double>(total)));
}

// --- local patterns: bit k is set where neighbour k is at least `least` ---

RESYNTH_HD int32_t pattern(const int32_t* above, const int32_t* here, const int32_t* below, int32_t grey_level) {
    const int32_t least = here[1] + grey_level;
    return (above[0] >= least) | (above[1] >= least) << 1 | (above[2] >= least) << 2 | (here[2] >= least) << 3 |
           (below[2] >= least) << 4 | (below[1] >= least) << 5 | (below[0] >= least) << 6 | (here[0] >= least) << 7;
}

RESYNTH_HD int32_t clipped_change(int32_t from, int32_t to) {  // 0 … 8
    const int32_t change = to - from;
    return (change < -4 ? -4 : change > 4 ? 4 : change) + 4;
}

// --- transforms ---

// Orthonormal DCT-II of x_k at from + k * from_step, to to + k * to_step; may be the same memory. The constants are
// cos(k pi / 16) / 2.
template <class Number>
RESYNTH_HD void cosine8(const Number* from, int64_t from_step, double* to, int64_t to_step) {
    constexpr double c1 = 0.49039264020161522, c2 = 0.46193976625564337, c3 = 0.41573480615127262,
                     c4 = 0.35355339059327379, c5 = 0.27778511650980114, c6 = 0.19134171618254492,
                     c7 = 0.09754516100806417;
    const double x0 = from[0], x1 = from[from_step], x2 = from[2 * from_step], x3 = from[3 * from_step];
    const double x4 = from[4 * from_step], x5 = from[5 * from_step], x6 = from[6 * from_step], x7 = from[7 * from_step];
    const double s0 = x0 + x7, s1 = x1 + x6, s2 = x2 + x5, s3 = x3 + x4;
    const double d0 = x0 - x7, d1 = x1 - x6, d2 = x2 - x5, d3 = x3 - x4;
    to[0] = c4 * ((s0 + s3) + (s1 + s2));
    to[to_step] = c1 * d0 + c3 * d1 + c5 * d2 + c7 * d3;
    to[2 * to_step] = c2 * (s0 - s3) + c6 * (s1 - s2);
    to[3 * to_step] = c3 * d0 - c7 * d1 - c1 * d2 - c5 * d3;
    to[4 * to_step] = c4 * ((s0 + s3) - (s1 + s2));
    to[5 * to_step] = c5 * d0 - c1 * d1 + c7 * d2 + c3 * d3;
    to[6 * to_step] = c6 * (s0 - s3) - c2 * (s1 - s2);
    to[7 * to_step] = c7 * d0 - c5 * d1 + c3 * d2 - c1 * d3;
}

// Sums over one detail band: of the band b and of a, the magnitudes of the finer scale's band over the same 2 x 2.
struct BandSums {
    double magnitude = 0, squares = 0, finer = 0, finer_squares = 0, both = 0;
};

// unit: one grey level in the band; the finer scale's unit is half of it. Returns the position of the next band.
RESYNTH_HD float* write_band(const BandSums& sums, double count, double unit, bool has_finer, float* out) {
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

// --- order statistics ---

// A percentile lies `fraction` of the way from the value of rank `below` to that of `above`.
struct Between {
    int64_t below, above;
    double fraction;
};

RESYNTH_HD Between between_ranks(double percent, int64_t count) {
    const double position = percent / 100 * static_cast<double>(count - 1);
    const int64_t below = static_cast<int64_t>(position);
    return {below, below + 1 < count ? below + 1 : count - 1, position - static_cast<double>(below)};
}

// --- gradients ---

RESYNTH_HD float log_share(double value, double unit) { return static_cast<float>(log(value / unit + 1e-3)); }

// Direction modulo 180 degrees in bins of 22.5. All products are of whole numbers below 2^26 with constants: no tie
// can arise from rounding.
RESYNTH_HD int32_t orientation(double gx, double gy) {
    constexpr double root2 = 1.41421356237309504880;
    const bool turn = gy < 0 || (gy == 0 && gx < 0);
    const double x = turn ? -gx : gx, y = turn ? -gy : gy;
    const double flat = (root2 + 1) * y, steep = (root2 - 1) * y;
    return (x <= flat) + (x <= y) + (x <= steep) + (x <= 0) + (x <= -steep) + (x <= -y) + (x <= -flat);
}

RESYNTH_HD double magnitude_percent(int k) {
    constexpr double percents[magnitude_quantiles] = {10, 25, 50, 75, 90, 97, 99.5};
    return percents[k];
}
RESYNTH_HD double contrast_percent(int k) {
    constexpr double percents[contrast_quantiles] = {5, 25, 50, 75, 95};
    return percents[k];
}
RESYNTH_HD double colour_percent(int k) {
    constexpr double percents[colour_quantiles] = {1, 5, 25, 50, 75, 95, 99};
    return percents[k];
}

// --- colour ---

RESYNTH_HD double saturation(int32_t highest, int32_t lowest) {
    return static_cast<double>(highest - lowest) / (highest + 0.255);
}

RESYNTH_HD int32_t luma_bin(int32_t luma) {
    const int32_t bin = luma * colour_bins / (255 * luma_unit);
    return bin < colour_bins ? bin : colour_bins - 1;
}
RESYNTH_HD bool is_dark(int32_t luma) { return luma <= 5100; }     // 2 %
RESYNTH_HD bool is_bright(int32_t luma) { return luma > 249900; }  // 98 %

// --- spectrum ---

// The ring, two frequencies wide, of a squared radius; side / 4 (no ring) beyond the largest whole circle.
RESYNTH_HD int64_t ring_of(int64_t squared_radius, int64_t side) {
    const int64_t largest = side / 2 - 1;
    if (squared_radius > largest * largest) return side / 4;
    int64_t ring = static_cast<int64_t>(sqrt(static_cast<double>(squared_radius)) / 2);
    while (4 * ring * ring > squared_radius) --ring;
    while (4 * (ring + 1) * (ring + 1) <= squared_radius) ++ring;
    return ring;
}

RESYNTH_HD double hann(int64_t k, int64_t side) {
    constexpr double pi = 3.14159265358979323846;
    return 0.5 - 0.5 * cos(2 * pi * static_cast<double>(k) / static_cast<double>(side - 1));
}

}  // namespace resynth
