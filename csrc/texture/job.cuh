// Shared by the texture kernels: their arrays, which lie in one workspace, and the position of a block among them.
#pragma once

#include "resynth/launch.h"
#include "resynth/texture.h"
#include "texture/layout.h"
#include "texture/math.h"

namespace resynth {
namespace {

// All arrays that the kernels read and write. The parts of each picture are contiguous.
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

// The picture of a block, and which of the picture's `parts` it computes.
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
}  // namespace resynth
