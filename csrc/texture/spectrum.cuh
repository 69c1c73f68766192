// The power spectrum: a Fourier transform along columns, then along rows, then means over rings.
#pragma once

#include "texture/block.cuh"
#include "texture/job.cuh"

namespace resynth {
namespace {

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

// One block per vertical frequency k, one thread per column x.
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

// One block per vertical frequency; a thread takes a horizontal frequency, then a ring. Of two conjugate frequencies
// only one is stored and counts twice, except in rows 0 and S/2, which store both.
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

}  // namespace
}  // namespace resynth
