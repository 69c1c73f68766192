#include "resynth/launch.h"
#include "resynth/texture_cuda.h"
#include "texture/block.cuh"

namespace resynth {
namespace {

// Everything the kernels read and write; of each picture the pieces lie one after another.
struct Job {
    TextureArgs args;
    TextureLayout at;
    int32_t* planes;                   // (n, 3, S, S): Y, Cb, Cr
    int32_t* halved[gradient_scales];  // (n, S / 2^k, S / 2^k): luma; 0 is unused
    double* coefficients;              // (n, 3, 64, blocks)
    uint32_t* coefficient_keys;        // (n, 64, blocks)
    int32_t* levels;                   // (n, 3, S² / 2): levels of the wavelet, one after another
    int32_t* bands;                    // (n, 3, S²): magnitudes of its bands
    double* numbers;                   // (n, gradient_scales + 1, S²)
    uint32_t* keys;                    // (n, gradient_scales + colour_channels, S²)
    double *window, *cosines, *sines;  // (S)
    double* means;                     // (n): of luma
    double *half_re, *half_im, *logs;  // (n, S/2 + 1, S)
    double *ring_sums, *ring_weights;  // (n, S/2 + 1, S/4)
};

struct Where {
    int64_t picture;
    int part;
};

// A block is one of `parts` of a picture.
__device__ Where where(int parts) {
    return {int64_t{blockIdx.x} / parts, static_cast<int>(int64_t{blockIdx.x} % parts)};
}

__device__ const int32_t* plane(const Job& job, int64_t picture, int which) {
    return job.planes + (picture * 3 + which) * job.args.side * job.args.side;
}

__device__ const int32_t* luma_at(const Job& job, int64_t picture, int scale) {
    const int64_t side = job.args.side >> scale;
    return scale == 0 ? plane(job, picture, 0) : job.halved[scale] + picture * side * side;
}

__device__ float* features(const Job& job, int64_t picture) { return job.args.features + picture * job.at.dimension; }

// A thread a tile of 8 x 8 px: three planes, and luma halved three times.
__global__ void planes_kernel(Job job) {
    const int64_t side = job.args.side, across = side / 8, tile = int64_t{blockIdx.x} * threads + threadIdx.x;
    if (tile >= job.args.count * across * across) return;
    const int64_t picture = tile / (across * across), row = tile / across % across * 8, column = tile % across * 8;
    const uint8_t* pixels = job.args.pictures + picture * side * side * 3;
    int32_t *y = job.planes + picture * 3 * side * side, *cb = y + side * side, *cr = cb + side * side;
    for (int64_t k = 0; k < 64; ++k) {
        const int64_t i = (row + k / 8) * side + column + k % 8;
        const int32_t r = pixels[3 * i], g = pixels[3 * i + 1], b = pixels[3 * i + 2];
        y[i] = luma_of(r, g, b);
        cb[i] = cb_of(r, g, b);
        cr[i] = cr_of(r, g, b);
    }
    const int32_t* from = y;
    for (int scale = 1; scale < gradient_scales; ++scale) {
        const int64_t fine = side >> (scale - 1), half = fine / 2, tall = 8 >> scale;
        int32_t* to = job.halved[scale] + picture * half * half;
        for (int64_t k = 0; k < tall * tall; ++k) {
            const int64_t v = (row >> scale) + k / tall, u = (column >> scale) + k % tall;
            const int32_t* a = from + 2 * v * fine + 2 * u;
            to[v * half + u] = a[0] + a[1] + a[fine] + a[fine + 1];
        }
        from = to;
    }
}

__device__ int32_t residual(int filter, const int32_t* at, int64_t step) {
    return filter == 0 ? difference1(at, step) : filter == 1 ? difference2(at, step) : difference3(at, step);
}

// A block one filter at one scale.
__global__ void residual_kernel(Job job) {
    __shared__ uint32_t counts[co_occurrence_bins];
    const Where here = where(2 * residual_filters);
    const int scale = here.part / residual_filters, filter = here.part % residual_filters;
    const int64_t side = job.args.side >> scale, kept = side - residual_reach(filter);
    const int32_t unit = luma_unit << 2 * scale, half = residual_quantiser(filter) * unit / 2;
    const int32_t* g = luma_at(job, here.picture, scale);
    float* row = features(job, here.picture);
    float* moments = row + (scale ? job.at.residual_half : job.at.residual) + filter * 2 * residual_numbers;
    block_clear(counts, co_occurrence_bins);
    for (int way = 0; way < 2; ++way) {  // along rows, along columns
        const bool square = filter == 3;
        const int64_t step = way ? side : 1, height = way || square ? kept : side, width = way && !square ? side : kept;
        ResidualSums sums;
        for (int64_t i = threadIdx.x; i < height * width; i += threads) {
            const int64_t y = i / width, x = i % width;
            const int32_t* at = g + y * side + x;
            const auto map = [&](const int32_t* p) {
                return square ? square_residual(p, side) : residual(filter, p, step);
            };
            const int32_t value = map(at), size = value < 0 ? -value : value;
            const double wide = value, squared = wide * wide;
            sums.sum += wide;
            sums.magnitude += size;
            sums.squares += squared;
            sums.fourths += squared * squared;
            sums.few += size < unit;
            sums.many += size > 8 * unit;
            if (way ? y + 2 >= height : x + 2 >= width) continue;
            const int b = quantise(map(at + step), half), c = quantise(map(at + 2 * step), half);
            atomicAdd(&counts[(quantise(value, half) * 5 + b) * 5 + c], 1u);
        }
        const ResidualSums all = {block_sum(sums.sum),     block_sum(sums.magnitude), block_sum(sums.squares),
                                  block_sum(sums.fourths), block_sum(sums.few),       block_sum(sums.many)};
        if (threadIdx.x == 0)
            write_residual(all, static_cast<double>(height * width), unit, moments + way * residual_numbers);
    }
    __syncthreads();
    int64_t total = 0;
    for (int bin = 0; bin < co_occurrence_bins; ++bin) total += 4 * int64_t{counts[bin]};
    float* out = row + (scale ? job.at.srm_half : job.at.srm) + filter * co_occurrence_bins;
    for (int bin = threadIdx.x; bin < co_occurrence_bins; bin += threads)
        out[bin] = root_share(symmetric_count(counts, bin), total);
}

__device__ void write_root_shares(const uint32_t* counts, int bins, float* out) {
    __syncthreads();
    int64_t total = 0;
    for (int bin = 0; bin < bins; ++bin) total += counts[bin];
    for (int bin = threadIdx.x; bin < bins; bin += threads) out[bin] = root_share(counts[bin], total);
}

__global__ void pattern_kernel(Job job) {
    __shared__ uint32_t counts[pattern_bins];
    const Where here = where(pattern_scales);
    const int64_t side = job.args.side >> here.part, kept = side - 2;
    const int32_t* g = luma_at(job, here.picture, here.part);
    block_clear(counts, pattern_bins);
    for (int64_t i = threadIdx.x; i < kept * kept; i += threads) {
        const int32_t* at = g + i / kept * side + i % kept;
        atomicAdd(&counts[pattern(at, at + side, at + 2 * side, luma_unit << 2 * here.part)], 1u);
    }
    write_root_shares(counts, pattern_bins, features(job, here.picture) + job.at.lbp + here.part * pattern_bins);
}

__global__ void chroma_kernel(Job job) {
    __shared__ uint32_t counts[chroma_bins];
    const Where here = where(chroma_maps);
    const int pair = here.part / 2, first = pair == 1 ? 1 : 0, second = pair == 0 ? 1 : 2;
    const bool down = here.part % 2;
    const int64_t side = job.args.side, step = down ? side : 1;
    const uint8_t* pixels = job.args.pictures + here.picture * side * side * 3;
    block_clear(counts, chroma_bins);
    for (int64_t i = threadIdx.x; i < side * side; i += threads) {
        if ((down ? i / side : i % side) + 2 >= side) continue;
        int32_t difference[3];
        for (int k = 0; k < 3; ++k) {
            const uint8_t* at = pixels + 3 * (i + k * step);
            difference[k] = at[first] - at[second];
        }
        const int32_t a = clipped_change(difference[0], difference[1]),
                      b = clipped_change(difference[1], difference[2]);
        atomicAdd(&counts[a * 9 + b], 1u);
    }
    write_root_shares(counts, chroma_bins, features(job, here.picture) + job.at.chroma + here.part * chroma_bins);
}

constexpr int dct_blocks = threads / 8;  // a thread block's; a thread takes a row, then a column of one of them

__global__ void dct_kernel(Job job) {
    __shared__ double values[dct_blocks][64];
    const int64_t side = job.args.side, across = side / 8, blocks = across * across;
    const int line = static_cast<int>(threadIdx.x) % 8, mine = static_cast<int>(threadIdx.x) / 8;
    const int64_t block = int64_t{blockIdx.x} * dct_blocks + mine, in_plane = block % blocks;
    const bool some = block < job.args.count * 3 * blocks;
    const int32_t* from =
        job.planes + block / blocks * side * side + in_plane / across * 8 * side + in_plane % across * 8;
    double* to = job.coefficients + block / blocks * 64 * blocks + in_plane;
    if (some) cosine8(from + line * side, 1, values[mine] + 8 * line, 1);
    __syncthreads();
    if (!some) return;
    cosine8(values[mine] + line, 8, to + line * blocks, 8 * blocks);
}

// A block one coefficient of one plane.
__global__ void dct_statistics_kernel(Job job) {
    const Where here = where(3 * 64);
    const int which = here.part / 64, k = here.part % 64;
    const int64_t blocks = job.args.side / 8 * (job.args.side / 8);
    const double unit = which == 0 ? luma_unit : chroma_unit;
    const double* values = job.coefficients + ((here.picture * 3 + which) * 64 + k) * blocks;
    float* out = features(job, here.picture) + job.at.dct;
    const BlockSpread spread = block_spread(blocks, [&](int64_t i) { return values[i]; });
    if (threadIdx.x == 0)
        out[(which ? which + 1 : 0) * 64 + k] = static_cast<float>(log(spread.deviation / unit + 1e-2));
    if (which != 0) return;
    uint32_t* keys = job.coefficient_keys + (here.picture * 64 + k) * blocks;
    for (int64_t i = threadIdx.x; i < blocks; i += threads) keys[i] = bits_of(static_cast<float>(fabs(values[i])));
    const double low = number_of(block_select(keys, blocks, (blocks - 1) / 2));
    const double median = (low + number_of(block_select(keys, blocks, blocks / 2))) / 2;
    if (threadIdx.x == 0) out[64 + k] = static_cast<float>(log(median / unit + 0.05));
}

__global__ void wavelet_kernel(Job job) {
    const Where here = where(3);
    const int64_t side = job.args.side, all = side * side;
    const int levels = wavelet_levels(side);
    const double unit = here.part ? chroma_unit : luma_unit;
    const int32_t *level = plane(job, here.picture, here.part), *finer = nullptr;
    int32_t* next = job.levels + (here.picture * 3 + here.part) * (all / 2);
    int32_t* bands = job.bands + (here.picture * 3 + here.part) * all;
    float* out = features(job, here.picture) + job.at.wavelet + here.part * 3 * (2 + 3 * (levels - 1));
    for (int k = 1; k <= levels; ++k) {
        const int64_t fine = side >> (k - 1), half = fine / 2, count = half * half;
        for (int64_t i = threadIdx.x; i < count; i += threads) {
            const int32_t* at = level + i / half * 2 * fine + i % half * 2;
            const int32_t p = at[0], q = at[1], r = at[fine], s = at[fine + 1];
            const int32_t detail[3] = {p - q + r - s, p + q - r - s, p - q - r + s};
            for (int band = 0; band < 3; ++band)
                bands[band * count + i] = detail[band] < 0 ? -detail[band] : detail[band];
            next[i] = p + q + r + s;
        }
        __syncthreads();
        for (int band = 0; band < 3; ++band) {
            BandSums sums;
            for (int64_t i = threadIdx.x; i < count; i += threads) {
                const double b = bands[band * count + i];
                sums.magnitude += b;
                sums.squares += b * b;
                if (!finer) continue;
                const int32_t* at = finer + band * fine * fine + i / half * 2 * fine + i % half * 2;
                const double a = at[0] + at[1] + at[fine] + at[fine + 1];
                sums.finer += a;
                sums.finer_squares += a * a;
                sums.both += a * b;
            }
            const BandSums total = {block_sum(sums.magnitude), block_sum(sums.squares), block_sum(sums.finer),
                                    block_sum(sums.finer_squares), block_sum(sums.both)};
            if (threadIdx.x == 0) write_band(total, static_cast<double>(count), unit * (1 << k), k > 1, out);
            out += k > 1 ? 3 : 2;
        }
        level = next;
        next += count;
        finer = bands;
        bands += 3 * count;
    }
}

// A block one scale.
__global__ void gradient_kernel(Job job) {
    const Where here = where(gradient_scales);
    const int64_t side = job.args.side >> here.part, kept = side - 2, count = kept * kept;
    const int64_t slot = job.args.side * job.args.side;
    const double unit = 255.0 * (luma_unit << 2 * here.part);
    const int32_t* g = luma_at(job, here.picture, here.part);
    double* magnitudes = job.numbers + (here.picture * (gradient_scales + 1) + here.part) * slot;
    uint32_t* keys = job.keys + (here.picture * (gradient_scales + colour_channels) + here.part) * slot;
    float* out = features(job, here.picture) + job.at.gradient + here.part * gradient_numbers;

    double weights[orientations] = {};
    for (int64_t i = threadIdx.x; i < count; i += threads) {
        const int32_t* at = g + i / kept * side + i % kept;
        const double gx = at[side + 2] - at[side], gy = at[2 * side + 1] - at[1];
        const double magnitude = sqrt(gx * gx + gy * gy);
        const int bin = orientation(gx, gy);
        for (int k = 0; k < orientations; ++k) weights[k] += k == bin ? magnitude : 0;
        magnitudes[i] = magnitude;
        keys[i] = bits_of(static_cast<float>(magnitude));
    }
    double total = 0;
    for (int k = 0; k < orientations; ++k) total += weights[k] = block_sum(weights[k]);
    const BlockSpread spread = block_spread(count, [&](int64_t i) { return magnitudes[i]; });
    if (threadIdx.x == 0) {
        for (int k = 0; k < orientations; ++k) out[k] = static_cast<float>(weights[k] / (total + 1e-6 * unit));
        out[orientations] = log_share(spread.mean, unit);
        out[orientations + 1] = log_share(spread.deviation, unit);
    }
    out += orientations + 2;
    for (int k = 0; k < magnitude_quantiles; ++k) {
        const double quantile = block_quantile(keys, count, magnitude_percent(k), number_of);
        if (threadIdx.x == 0) out[k] = log_share(quantile, unit);
    }
    out += magnitude_quantiles;

    const int64_t tile = side < 8 ? side : 8, across = side / tile;
    __syncthreads();  // the keys have been read
    for (int64_t i = threadIdx.x; i < across * across; i += threads) {
        const int32_t* corner = g + i / across * tile * side + i % across * tile;
        int64_t sum = 0, squares = 0;
        for (int64_t k = 0; k < tile * tile; ++k) {
            const int64_t value = corner[k / tile * side + k % tile];
            sum += value;
            squares += value * value;
        }
        const double spread_of_tile = static_cast<double>(tile * tile * squares - sum * sum);
        keys[i] = bits_of(static_cast<float>(sqrt(spread_of_tile) / static_cast<double>(tile * tile)));
    }
    __syncthreads();
    for (int k = 0; k < contrast_quantiles; ++k) {
        const double quantile = block_quantile(keys, across * across, contrast_percent(k), number_of);
        if (threadIdx.x == 0) out[k] = log_share(quantile, unit);
    }
}

__device__ double saturation_at(const uint8_t* p) {
    const int32_t more = p[0] > p[1] ? p[0] : p[1], less = p[0] < p[1] ? p[0] : p[1];
    return saturation(more > p[2] ? more : p[2], less < p[2] ? less : p[2]);
}

// A block one channel: Y, saturation, Cb, Cr.
__global__ void channel_kernel(Job job) {
    const Where here = where(colour_channels);
    const int64_t count = job.args.side * job.args.side;
    const bool saturated = here.part == 1;
    const int which = here.part == 0 ? 0 : here.part - 1;
    const double unit = saturated ? 1 : 255.0 * (which ? chroma_unit : luma_unit);
    const int32_t lowest = which ? -128 * chroma_unit : 0;
    const int32_t* values = plane(job, here.picture, which);
    const uint8_t* pixels = job.args.pictures + here.picture * count * 3;
    double* saturations = job.numbers + (here.picture * (gradient_scales + 1) + gradient_scales) * count;
    uint32_t* keys =
        job.keys + (here.picture * (gradient_scales + colour_channels) + gradient_scales + here.part) * count;
    float* out = features(job, here.picture) + job.at.colour + here.part * (2 + colour_quantiles);
    for (int64_t i = threadIdx.x; i < count; i += threads) {
        if (saturated) saturations[i] = saturation_at(pixels + 3 * i);
        keys[i] = saturated ? bits_of(static_cast<float>(saturations[i])) : static_cast<uint32_t>(values[i] - lowest);
    }
    const BlockSpread spread = block_spread(count, [&](int64_t i) { return saturated ? saturations[i] : values[i]; });
    if (threadIdx.x == 0) {
        out[0] = static_cast<float>(spread.mean / unit);
        out[1] = static_cast<float>(spread.deviation / unit);
    }
    for (int k = 0; k < colour_quantiles; ++k) {
        const double quantile = block_quantile(keys, count, colour_percent(k), [&](uint32_t key) {
            return saturated ? number_of(key) : static_cast<double>(key) + lowest;
        });
        if (threadIdx.x == 0) out[2 + k] = static_cast<float>(quantile / unit);
    }
}

// Histograms, covariance and extremes of a picture's colours.
__global__ void colour_kernel(Job job) {
    __shared__ uint32_t counts[2 * colour_bins];
    const int64_t picture = blockIdx.x, count = job.args.side * job.args.side;
    const int32_t* luma = plane(job, picture, 0);
    const uint8_t* pixels = job.args.pictures + picture * count * 3;
    float* out = features(job, picture) + job.at.colour + colour_channels * (2 + colour_quantiles);
    int64_t sums[3] = {}, products[6] = {}, extremes[3] = {};
    block_clear(counts, 2 * colour_bins);
    for (int64_t i = threadIdx.x; i < count; i += threads) {
        const uint8_t* p = pixels + 3 * i;
        const double saturated = saturation_at(p);
        atomicAdd(&counts[luma_bin(luma[i])], 1u);
        atomicAdd(&counts[colour_bins + static_cast<int>(saturated * colour_bins)], 1u);
        for (int a = 0, k = 0; a < 3; ++a) {
            sums[a] += p[a];
            for (int b = a; b < 3; ++b) products[k++] += p[a] * p[b];
        }
        extremes[0] += is_dark(luma[i]);
        extremes[1] += is_bright(luma[i]);
        extremes[2] += saturated < 0.05;
    }
    for (int64_t& sum : sums) sum = block_sum(sum);
    for (int64_t& product : products) product = block_sum(product);
    for (int64_t& extreme : extremes) extreme = block_sum(extreme);
    if (threadIdx.x != 0) return;
    const double n = static_cast<double>(count);
    for (int bin = 0; bin < 2 * colour_bins; ++bin) *out++ = static_cast<float>(counts[bin] / n);
    for (int a = 0, k = 0; a < 3; ++a)
        for (int b = a; b < 3; ++b) {
            const double both = static_cast<double>(sums[a]) * static_cast<double>(sums[b]) / n;
            *out++ = static_cast<float>(5 * ((static_cast<double>(products[k++]) - both) / (n - 1) / (255.0 * 255.0)));
        }
    for (int64_t extreme : extremes) *out++ = static_cast<float>(static_cast<double>(extreme) / n);
}

__global__ void tables_kernel(Job job) {
    constexpr double pi = 3.14159265358979323846;
    const int64_t k = int64_t{blockIdx.x} * threads + threadIdx.x, side = job.args.side;
    if (k >= side) return;
    const double angle = -2 * pi * static_cast<double>(k) / static_cast<double>(side);
    job.window[k] = hann(k, side);
    job.cosines[k] = cos(angle);
    job.sines[k] = sin(angle);
}

__global__ void mean_kernel(Job job) {
    const int64_t picture = blockIdx.x, count = job.args.side * job.args.side;
    const int32_t* luma = plane(job, picture, 0);
    int64_t sum = 0;
    for (int64_t i = threadIdx.x; i < count; i += threads) sum += luma[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) job.means[picture] = static_cast<double>(sum) / static_cast<double>(count);
}

// A block one vertical frequency k; a thread a column x.
__global__ void vertical_kernel(Job job) {
    const int64_t side = job.args.side, kept = side / 2 + 1;
    const int64_t picture = int64_t{blockIdx.x} / kept, k = int64_t{blockIdx.x} % kept;
    const int32_t* luma = plane(job, picture, 0);
    const double mean = job.means[picture];
    for (int64_t x = threadIdx.x; x < side; x += threads) {
        double re = 0, im = 0;
        const double here = job.window[x] / luma_unit;
        for (int64_t y = 0, turn = 0; y < side; ++y, turn += k, turn -= turn >= side ? side : 0) {
            const double value = (luma[y * side + x] - mean) * here * job.window[y];
            re += value * job.cosines[turn];
            im += value * job.sines[turn];
        }
        job.half_re[(picture * kept + k) * side + x] = re;
        job.half_im[(picture * kept + k) * side + x] = im;
    }
}

// A block one vertical frequency; a thread a horizontal one, then a ring. Of two conjugate frequencies one is here, and
// counts twice; those of rows 0 and S/2 are both here.
__global__ void horizontal_kernel(Job job) {
    const int64_t side = job.args.side, kept = side / 2 + 1, rings = side / 4;
    const int64_t picture = int64_t{blockIdx.x} / kept, k = int64_t{blockIdx.x} % kept, row = picture * kept + k;
    const double *from_re = job.half_re + row * side, *from_im = job.half_im + row * side;
    double* logs = job.logs + row * side;
    for (int64_t l = threadIdx.x; l < side; l += threads) {
        double re = 0, im = 0;
        for (int64_t x = 0, turn = 0; x < side; ++x, turn += l, turn -= turn >= side ? side : 0) {
            re += from_re[x] * job.cosines[turn] - from_im[x] * job.sines[turn];
            im += from_re[x] * job.sines[turn] + from_im[x] * job.cosines[turn];
        }
        logs[l] = log(re * re + im * im + 1e-3);
    }
    __syncthreads();
    const double weight = k == 0 || k == side / 2 ? 1 : 2;
    for (int64_t ring = threadIdx.x; ring < rings; ring += threads) {
        double sum = 0, total = 0;
        for (int64_t l = 0; l < side; ++l) {
            const int64_t u = l < side - l ? l : side - l;
            if (ring_of(u * u + k * k, side) != ring) continue;
            sum += weight * logs[l];
            total += weight;
        }
        job.ring_sums[row * rings + ring] = sum;
        job.ring_weights[row * rings + ring] = total;
    }
}

__global__ void ring_kernel(Job job) {
    const int64_t picture = blockIdx.x, side = job.args.side, kept = side / 2 + 1, rings = side / 4;
    for (int64_t ring = threadIdx.x; ring < rings; ring += threads) {
        double sum = 0, total = 0;
        for (int64_t k = 0; k < kept; ++k) {
            sum += job.ring_sums[(picture * kept + k) * rings + ring];
            total += job.ring_weights[(picture * kept + k) * rings + ring];
        }
        features(job, picture)[job.at.spectrum + ring] = static_cast<float>(sum / total);
    }
}

Job job_of(const TextureArgs& args, Workspace& workspace) {
    const int64_t n = args.count, side = args.side, pixels = side * side, kept = side / 2 + 1;
    Job job{};
    job.args = args;
    job.at = texture_layout(side);
    job.planes = workspace.take<int32_t>(n * 3 * pixels);
    for (int scale = 1; scale < gradient_scales; ++scale)
        job.halved[scale] = workspace.take<int32_t>(n * (side >> scale) * (side >> scale));
    job.coefficients = workspace.take<double>(n * 3 * pixels);
    job.coefficient_keys = workspace.take<uint32_t>(n * pixels);
    job.levels = workspace.take<int32_t>(n * 3 * (pixels / 2));
    job.bands = workspace.take<int32_t>(n * 3 * pixels);
    job.numbers = workspace.take<double>(n * (gradient_scales + 1) * pixels);
    job.keys = workspace.take<uint32_t>(n * (gradient_scales + colour_channels) * pixels);
    double** tables[3] = {&job.window, &job.cosines, &job.sines};
    for (double** table : tables) *table = workspace.take<double>(side);
    job.means = workspace.take<double>(n);
    double** spectra[3] = {&job.half_re, &job.half_im, &job.logs};
    for (double** spectrum : spectra) *spectrum = workspace.take<double>(n * kept * side);
    job.ring_sums = workspace.take<double>(n * kept * (side / 4));
    job.ring_weights = workspace.take<double>(n * kept * (side / 4));
    return job;
}

}  // namespace

int64_t texture_workspace_bytes(int64_t count, int64_t side) {
    Workspace workspace(nullptr);
    job_of({nullptr, count, side, nullptr}, workspace);
    return workspace.used();
}

cudaError_t texture_cuda(const TextureArgs& args, void* workspace, cudaStream_t stream) {
    if (args.count == 0) return cudaSuccess;
    Workspace pieces(workspace);
    const Job job = job_of(args, pieces);
    const int64_t n = args.count, tiles = args.side / 8 * (args.side / 8), kept = args.side / 2 + 1;
    const struct {
        void (*kernel)(Job);
        int64_t blocks;
    } steps[] = {
        {planes_kernel, blocks_for(n * tiles, threads)},
        {residual_kernel, n * 2 * residual_filters},
        {pattern_kernel, n * pattern_scales},
        {chroma_kernel, n * chroma_maps},
        {dct_kernel, blocks_for(n * 3 * tiles, dct_blocks)},
        {dct_statistics_kernel, n * 3 * 64},
        {wavelet_kernel, n * 3},
        {gradient_kernel, n * gradient_scales},
        {channel_kernel, n * colour_channels},
        {colour_kernel, n},
        {tables_kernel, blocks_for(args.side, threads)},
        {mean_kernel, n},
        {vertical_kernel, n * kept},
        {horizontal_kernel, n * kept},
        {ring_kernel, n},
    };
    cudaError_t error = cudaSuccess;
    for (const auto& step : steps)
        if (error == cudaSuccess) error = launch(step.kernel, step.blocks, threads, stream, job);
    return error;
}

}  // namespace resynth
