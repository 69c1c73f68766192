// Blocks of order statistics and moments: gradients and colour.
#pragma once

#include "texture/select.h"

namespace resynth {
namespace {

// Standard deviations in tiles of 8 x 8 px, or of the whole where it is smaller; returns how many.
inline int64_t local_deviations(Map<const int32_t> g, uint32_t* keys) {
    const int64_t tile = g.side < 8 ? g.side : 8, across = g.side / tile;
    const double pixels = static_cast<double>(tile * tile);
    for (int64_t row = 0; row < across; ++row)
        for (int64_t column = 0; column < across; ++column) {
            int64_t sum = 0, squares = 0;
            for (int64_t y = 0; y < tile; ++y) {
                const int32_t* line = g.row(row * tile + y) + column * tile;
                for (int64_t x = 0; x < tile; ++x) {
                    sum += line[x];
                    squares += int64_t{line[x]} * line[x];
                }
            }
            const int64_t spread = tile * tile * squares - sum * sum;  // exact: below 2^63
            keys[row * across + column] = key_of(static_cast<float>(sqrt(static_cast<double>(spread)) / pixels));
        }
    return across * across;
}

// g: luma at scale s, sums over 4^s px; unit: its full range.
inline void gradients(Map<const int32_t> g, double unit, float* out, Arena arena) {
    const int64_t kept = g.side - 2, count = kept * kept;
    double* magnitudes = arena.take<double>(count);
    uint8_t* bins = arena.take<uint8_t>(kept);
    uint32_t* keys = arena.take<uint32_t>(g.side * g.side);
    double weights[4][orientations] = {};
    for (int64_t y = 0; y < kept; ++y) {
        const int32_t *above = g.row(y) + 1, *here = g.row(y + 1), *below = g.row(y + 2) + 1;
        double* line = magnitudes + y * kept;
#pragma omp simd
        for (int64_t x = 0; x < kept; ++x) {
            const double gx = here[x + 2] - here[x], gy = below[x] - above[x];
            line[x] = sqrt(gx * gx + gy * gy);
            bins[x] = static_cast<uint8_t>(orientation(gx, gy));
        }
        for (int64_t x = 0; x < kept; ++x) weights[x & 3][bins[x]] += line[x];
        for (int64_t x = 0; x < kept; ++x) keys[y * kept + x] = key_of(static_cast<float>(line[x]));
    }
    double total = 0;
    for (int bin = 0; bin < orientations; ++bin) {
        weights[0][bin] += weights[1][bin] + weights[2][bin] + weights[3][bin];
        total += weights[0][bin];
    }
    for (int bin = 0; bin < orientations; ++bin) *out++ = static_cast<float>(weights[0][bin] / (total + 1e-6 * unit));
    const Spread spread = spread_of(magnitudes, count);
    *out++ = log_share(spread.mean, unit);
    *out++ = log_share(spread.deviation, unit);

    double found[magnitude_quantiles];
    const auto value = [](uint32_t key) { return double{value_of(key)}; };
    quantiles<magnitude_quantiles>(keys, count, magnitude_percent, value, found, arena);
    for (double quantile : found) *out++ = log_share(quantile, unit);
    quantiles<contrast_quantiles>(keys, local_deviations(g, keys), contrast_percent, value, found, arena);
    for (int k = 0; k < contrast_quantiles; ++k) *out++ = log_share(found[k], unit);
}

// Whole numbers of one channel: mean, deviation, quantiles, all divided by `unit`. `lowest` is a bound from below.
inline float* channel(const int32_t* values, int64_t count, int32_t lowest, double unit, float* out, Arena arena) {
    const Spread spread = spread_of(values, count);
    *out++ = static_cast<float>(spread.mean / unit);
    *out++ = static_cast<float>(spread.deviation / unit);
    uint32_t* keys = arena.take<uint32_t>(count);
    for (int64_t i = 0; i < count; ++i) keys[i] = static_cast<uint32_t>(values[i] - lowest);
    double found[colour_quantiles];
    const auto value = [lowest](uint32_t key) { return static_cast<double>(key) + lowest; };
    quantiles<colour_quantiles>(keys, count, colour_percent, value, found, arena);
    for (double quantile : found) *out++ = static_cast<float>(quantile / unit);
    return out;
}

inline float* saturation_channel(const double* values, int64_t count, float* out, Arena arena) {
    const Spread spread = spread_of(values, count);
    *out++ = static_cast<float>(spread.mean);
    *out++ = static_cast<float>(spread.deviation);
    uint32_t* keys = arena.take<uint32_t>(count);
    for (int64_t i = 0; i < count; ++i) keys[i] = key_of(static_cast<float>(values[i]));
    double found[colour_quantiles];
    const auto value = [](uint32_t key) { return double{value_of(key)}; };
    quantiles<colour_quantiles>(keys, count, colour_percent, value, found, arena);
    for (double quantile : found) *out++ = static_cast<float>(quantile);
    return out;
}

// 5 times the covariance of R, G, B in 0 … 1, upper triangle. All sums are exact.
inline float* covariances(const Map<const uint8_t>* rgb, int64_t count, float* out) {
    for (int i = 0; i < 3; ++i)
        for (int k = i; k < 3; ++k) {
            int64_t products = 0, first = 0, second = 0;
            for (int64_t y = 0; y < rgb[0].side; ++y) {
                const uint8_t *a = rgb[i].row(y), *b = rgb[k].row(y);
                int32_t row_products = 0, row_first = 0, row_second = 0;  // of at most 4096 px
                for (int64_t x = 0; x < rgb[0].side; ++x) {
                    row_products += a[x] * b[x];
                    row_first += a[x];
                    row_second += b[x];
                }
                products += row_products;
                first += row_first;
                second += row_second;
            }
            const double n = static_cast<double>(count),
                         sums = static_cast<double>(first) * static_cast<double>(second);
            *out++ = static_cast<float>(5 * ((static_cast<double>(products) - sums / n) / (n - 1) / (255.0 * 255.0)));
        }
    return out;
}

// rgb: three planes of bytes; ycc: Y, Cb, Cr.
inline void colour(const Map<const uint8_t>* rgb, const Map<const int32_t>* ycc, float* out, Arena arena) {
    const int64_t count = ycc[0].side * ycc[0].side;
    double* saturations = arena.take<double>(count);
    uint8_t* bins = arena.take<uint8_t>(count);
    const uint8_t *red = rgb[0].data, *green = rgb[1].data, *blue = rgb[2].data;
    const int32_t* luma = ycc[0].data;
    Histogram<colour_bins> luma_counts, saturation_counts;
    int64_t dark = 0, bright = 0, pale = 0;

    for (int64_t i = 0; i < count; ++i) {
        const int32_t r = red[i], g = green[i], b = blue[i];
        const int32_t more = r > g ? r : g, less = r < g ? r : g;
        saturations[i] = saturation(more > b ? more : b, less < b ? less : b);
    }
    for (int64_t i = 0; i < count; ++i) bins[i] = static_cast<uint8_t>(luma_bin(luma[i]));
    luma_counts.add(bins, count);
    for (int64_t i = 0; i < count; ++i)
        bins[i] = static_cast<uint8_t>(static_cast<int32_t>(saturations[i] * colour_bins));
    saturation_counts.add(bins, count);
    for (int64_t i = 0; i < count; ++i) {
        dark += is_dark(luma[i]);
        bright += is_bright(luma[i]);
        pale += saturations[i] < 0.05;
    }

    constexpr int32_t least_chroma = -128 * chroma_unit;
    out = channel(luma, count, 0, 255.0 * luma_unit, out, arena);
    out = saturation_channel(saturations, count, out, arena);
    out = channel(ycc[1].data, count, least_chroma, 255.0 * chroma_unit, out, arena);
    out = channel(ycc[2].data, count, least_chroma, 255.0 * chroma_unit, out, arena);
    const double n = static_cast<double>(count);
    const uint32_t* histograms[2] = {luma_counts.finish(), saturation_counts.finish()};
    for (const uint32_t* counts : histograms)
        for (int bin = 0; bin < colour_bins; ++bin) *out++ = static_cast<float>(counts[bin] / n);
    out = covariances(rgb, count, out);
    const int64_t extremes[3] = {dark, bright, pale};
    for (int64_t extreme : extremes) *out++ = static_cast<float>(static_cast<double>(extreme) / n);
}

}  // namespace
}  // namespace resynth
