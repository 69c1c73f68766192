// The cosine transform of blocks of 8 x 8 px, and wavelets.
#pragma once

#include "texture/block.cuh"
#include "texture/job.cuh"

namespace resynth {
namespace {

constexpr int dct_blocks = threads / 8;  // per thread block; a thread takes a row, then a column of one of them

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

// One block per coefficient of a plane.
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

}  // namespace
}  // namespace resynth
