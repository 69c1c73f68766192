// Log power of luma by radial frequency: a two-dimensional Fourier transform of doubles for any side.
#pragma once

#include <string.h>

#include "texture/cpu.h"

namespace resynth {
namespace {

constexpr int64_t strip = 8;  // signals transformed side by side, one per lane

struct Complex {  // (length, strip), real and imaginary parts apart
    double *re, *im;
    Complex operator+(int64_t row) const { return {re + row * strip, im + row * strip}; }
};

inline Complex take_complex(Arena& arena, int64_t length) {
    return {arena.take<double>(length * strip), arena.take<double>(length * strip)};
}

// One Stockham stage: to[(radix p + k) s + q] = w^(p k) sum_j from[(p + j m) s + q] exp(-2 pi i j k / radix), with
// m = n / radix and w = exp(-2 pi i / n). `root` holds exp(-2 pi i k / length), length = n s.
inline void stage4(Complex from, Complex to, int64_t n, int64_t s, const double* cosines, const double* sines) {
    const int64_t m = n / 4;
    for (int64_t p = 0; p < m; ++p) {
        const double wr1 = cosines[p * s], wi1 = sines[p * s];
        const double wr2 = cosines[2 * p * s], wi2 = sines[2 * p * s];
        const double wr3 = cosines[3 * p * s], wi3 = sines[3 * p * s];
        const Complex a = from + p * s, b = from + (p + m) * s, c = from + (p + 2 * m) * s, d = from + (p + 3 * m) * s;
        const Complex y0 = to + 4 * p * s, y1 = y0 + s, y2 = y1 + s, y3 = y2 + s;
#pragma omp simd
        for (int64_t q = 0; q < s * strip; ++q) {
            const double sum_r = a.re[q] + c.re[q], sum_i = a.im[q] + c.im[q];
            const double odd_r = b.re[q] + d.re[q], odd_i = b.im[q] + d.im[q];
            const double dif_r = a.re[q] - c.re[q], dif_i = a.im[q] - c.im[q];
            const double rot_r = b.im[q] - d.im[q], rot_i = d.re[q] - b.re[q];  // -i (b - d)
            y0.re[q] = sum_r + odd_r;
            y0.im[q] = sum_i + odd_i;
            const double r1 = dif_r + rot_r, i1 = dif_i + rot_i;
            y1.re[q] = r1 * wr1 - i1 * wi1;
            y1.im[q] = r1 * wi1 + i1 * wr1;
            const double r2 = sum_r - odd_r, i2 = sum_i - odd_i;
            y2.re[q] = r2 * wr2 - i2 * wi2;
            y2.im[q] = r2 * wi2 + i2 * wr2;
            const double r3 = dif_r - rot_r, i3 = dif_i - rot_i;
            y3.re[q] = r3 * wr3 - i3 * wi3;
            y3.im[q] = r3 * wi3 + i3 * wr3;
        }
    }
}

inline void stage(Complex from, Complex to, int64_t n, int64_t s, int64_t radix, const double* cosines,
                  const double* sines) {
    const int64_t m = n / radix, length = n * s;
    for (int64_t p = 0; p < m; ++p)
        for (int64_t k = 0; k < radix; ++k) {
            const Complex y = to + (radix * p + k) * s;
            memset(y.re, 0, static_cast<size_t>(s * strip) * sizeof *y.re);
            memset(y.im, 0, static_cast<size_t>(s * strip) * sizeof *y.im);
            for (int64_t j = 0; j < radix; ++j) {
                const Complex x = from + (p + j * m) * s;
                const int64_t turn = (p * k * s + j * k * (length / radix)) % length;
                const double wr = cosines[turn], wi = sines[turn];
#pragma omp simd
                for (int64_t q = 0; q < s * strip; ++q) {
                    y.re[q] += x.re[q] * wr - x.im[q] * wi;
                    y.im[q] += x.re[q] * wi + x.im[q] * wr;
                }
            }
        }
}

// Transforms `strip` signals of `length` along the rows; returns whichever of the two buffers holds the result.
inline Complex transform(Complex from, Complex to, int64_t length, const double* cosines, const double* sines) {
    int64_t n = length, s = 1;
    while (n > 1) {
        int64_t radix = 4;
        if (n % 4 == 0) {
            stage4(from, to, n, s, cosines, sines);
        } else {
            for (radix = 2; n % radix != 0;) ++radix;
            stage(from, to, n, s, radix, cosines, sines);
        }
        const Complex done = to;
        to = from;
        from = done;
        n /= radix;
        s *= radix;
    }
    return from;
}

// Natural logarithm to 1e-11 for normal, positive values, in a form that compilers vectorise: x = 2^e m, m in sqrt(1/2)
// … sqrt(2), log m = 2 artanh((m - 1) / (m + 1)).
inline double log_of(double x) {
    constexpr uint64_t root_half = 0x3FE6A09E667F3BCDull, one = 0x3FF0000000000000ull, magic = 0x4330000000000000ull;
    const uint64_t bits = __builtin_bit_cast(uint64_t, x), biased = bits - root_half + one;
    const uint64_t exponent = biased >> 52;  // e + 1023
    const double e = __builtin_bit_cast(double, exponent | magic) - (4503599627370496.0 + 1023.0);
    const double m = __builtin_bit_cast(double, bits - (exponent << 52) + one);
    const double t = (m - 1) / (m + 1), u = t * t;
    const double series =
        1.0 + u * (1.0 / 3 + u * (1.0 / 5 + u * (1.0 / 7 + u * (1.0 / 9 + u * (1.0 / 11 + u * (1.0 / 13))))));
    return e * 0.69314718055994530942 + 2 * t * series;
}

// The transform of a real picture along its columns, two columns a complex signal: rows 0 … S/2 of every column x, at
// half[x (S/2 + 1) + k].
inline void along_columns(Map<const int32_t> luma, double mean, const double* window, const double* cosines,
                          const double* sines, Complex half, Arena arena) {
    const int64_t side = luma.side, kept = side / 2 + 1;
    const Complex first = take_complex(arena, side), second = take_complex(arena, side);
    for (int64_t column = 0; column < side; column += 2 * strip) {
        const int64_t lanes = side - column < 2 * strip ? (side - column) / 2 : strip;
        for (int64_t y = 0; y < side; ++y) {
            const int32_t* line = luma.row(y) + column;
            const double here = window[y] / luma_unit;
            for (int64_t lane = 0; lane < lanes; ++lane) {
                const int64_t x = 2 * lane;
                (first + y).re[lane] = (line[x] - mean) * here * window[column + x];
                (first + y).im[lane] = (line[x + 1] - mean) * here * window[column + x + 1];
            }
            for (int64_t lane = lanes; lane < strip; ++lane) (first + y).re[lane] = (first + y).im[lane] = 0;
        }
        const Complex done = transform(first, second, side, cosines, sines);
        for (int64_t lane = 0; lane < lanes; ++lane) {
            double *re = half.re + (column + 2 * lane) * kept, *im = half.im + (column + 2 * lane) * kept;
            for (int64_t k = 0; k < kept; ++k) {
                const Complex z = done + k, mirror = done + (k == 0 ? 0 : side - k);
                re[k] = (z.re[lane] + mirror.re[lane]) / 2;
                im[k] = (z.im[lane] - mirror.im[lane]) / 2;
                re[k + kept] = (z.im[lane] + mirror.im[lane]) / 2;
                im[k + kept] = (mirror.re[lane] - z.re[lane]) / 2;
            }
        }
    }
}

inline void spectrum(Map<const int32_t> luma, float* out, Arena arena) {
    constexpr double pi = 3.14159265358979323846;
    const int64_t side = luma.side, kept = side / 2 + 1, rings = side / 4;
    double *window = arena.take<double>(side), *cosines = arena.take<double>(side), *sines = arena.take<double>(side);
    double *sums = arena.take<double>(rings + 1), *weights = arena.take<double>(rings + 1);
    int64_t total = 0;
    for (int64_t i = 0; i < side * side; ++i) total += luma.data[i];
    for (int64_t k = 0; k < side; ++k) {
        window[k] = hann(k, side);
        const double angle = -2 * pi * static_cast<double>(k) / static_cast<double>(side);
        cosines[k] = cos(angle);
        sines[k] = sin(angle);
    }
    for (int64_t ring = 0; ring <= rings; ++ring) sums[ring] = weights[ring] = 0;

    const Complex half{arena.take<double>(side * kept), arena.take<double>(side * kept)};
    const double mean = static_cast<double>(total) / static_cast<double>(side * side);
    along_columns(luma, mean, window, cosines, sines, half, arena);

    const Complex first = take_complex(arena, side), second = take_complex(arena, side);
    for (int64_t column = 0; column < kept; column += strip) {
        const int64_t lanes = kept - column < strip ? kept - column : strip;
        for (int64_t x = 0; x < side; ++x) {
            const double *re = half.re + x * kept + column, *im = half.im + x * kept + column;
            const Complex row = first + x;
            for (int64_t lane = 0; lane < lanes; ++lane) row.re[lane] = re[lane], row.im[lane] = im[lane];
            for (int64_t lane = lanes; lane < strip; ++lane) row.re[lane] = row.im[lane] = 0;
        }
        const Complex done = transform(first, second, side, cosines, sines);
#pragma omp simd
        for (int64_t i = 0; i < side * strip; ++i) {
            const double power = done.re[i] * done.re[i] + done.im[i] * done.im[i];
            done.re[i] = log_of(power + 1e-3);
        }
        // Of two conjugate frequencies only one is stored and counts twice, except in columns 0 and S/2.
        for (int64_t lane = 0; lane < lanes; ++lane) {
            const int64_t k = column + lane;
            const double weight = k == 0 || k == side / 2 ? 1 : 2;
            for (int64_t x = 0; x < side; ++x) {
                const int64_t v = x < side - x ? x : side - x, ring = ring_of(v * v + k * k, side);
                sums[ring] += weight * (done + x).re[lane];
                weights[ring] += weight;
            }
        }
    }
    for (int64_t ring = 0; ring < rings; ++ring) out[ring] = static_cast<float>(sums[ring] / weights[ring]);
}

}  // namespace
}  // namespace resynth
