// Gradients, contrast and colours.
#pragma once

#include "texture/block.cuh"
#include "texture/job.cuh"

namespace resynth {
namespace {

// One block per scale.
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

// One block per channel: Y, saturation, Cb, Cr.
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

}  // namespace
}  // namespace resynth
