#include "resynth/texture_cuda.h"
#include "texture/counts.cuh"
#include "texture/spectrum.cuh"
#include "texture/statistics.cuh"
#include "texture/transforms.cuh"

namespace resynth {
namespace {

// One thread per tile of 8 x 8 px computes three planes, and luma at three halvings.
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
