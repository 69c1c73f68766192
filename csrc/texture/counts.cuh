// Histograms: residuals and their co-occurrences, local binary patterns, changes of colour differences.
#pragma once

#include "texture/block.cuh"
#include "texture/job.cuh"

namespace resynth {
namespace {

__device__ int32_t residual(int filter, const int32_t* at, int64_t step) {
    return filter == 0 ? difference1(at, step) : filter == 1 ? difference2(at, step) : difference3(at, step);
}

// One block per filter and scale.
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

}  // namespace
}  // namespace resynth
