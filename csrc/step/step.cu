// Plain CUDA C++ without <<<>>>, so that tests can also compile it with the host compiler over an emulation header.
#include "resynth/launch.h"
#include "resynth/step_cuda.h"
#include "step/math.h"

namespace resynth {
namespace {

constexpr int threads = 256;  // per block
constexpr int unroll = 4;     // elements per thread: as many loads of each array are in flight

// A thread's elements of one row are a block's width apart, so that neighbouring threads read neighbouring elements.
struct Mine {
    int64_t first;  // of this thread, counted from the start of the arrays
    int count;      // how many of `unroll` lie within the row

    template <class Visit>
    __device__ void each(Visit visit) const {
#pragma unroll
        for (int k = 0; k < unroll; ++k)
            if (k < count) visit(k, first + k * threads);
    }
};

__global__ void step_kernel(StepArgs args, int64_t blocks_per_row) {
    const int64_t row = blockIdx.x / blocks_per_row;
    const int64_t within = blockIdx.x % blocks_per_row * threads * unroll + threadIdx.x, left = args.elements - within;
    const Mine mine{
        row * args.elements + within,
        left <= 0 ? 0 : static_cast<int>(left < threads * unroll ? (left + threads - 1) / threads : unroll)};
    const StepWeights weights = args.weights[row];

    // As on the CPU, everything is read before anything is written: arrays may be one and the same.
    float output[unroll] = {}, sum[unroll] = {};
    const auto add = [&](const float* array, float weight) {
        if (array && weight != 0.0f) mine.each([&](int k, int64_t at) { accumulate(sum[k], weight, array[at]); });
    };
    if (weights.outputs[0] != 0.0f || args.guided) {
        mine.each([&](int k, int64_t at) { output[k] = args.outputs[0][at]; });
        if (args.unconditional)
            mine.each(
                [&](int k, int64_t at) { output[k] = guide(args.unconditional[at], output[k], weights.guidance); });
        if (weights.outputs[0] != 0.0f)
            mine.each([&](int k, int64_t) { accumulate(sum[k], weights.outputs[0], output[k]); });
    }
#pragma unroll
    for (int i = 0; i < step_history; ++i) add(args.samples[i], weights.samples[i]);
#pragma unroll
    for (int j = 1; j < step_history; ++j) add(args.outputs[j], weights.outputs[j]);
    add(args.noise, weights.noise);

    mine.each([&](int k, int64_t at) {
        args.out[at] = sum[k];
        if (args.guided) args.guided[at] = output[k];
        if (args.scaled) args.scaled[at] = sum[k] * weights.input_scale;
    });
}

}  // namespace

cudaError_t step_cuda(const StepArgs& args, cudaStream_t stream) {
    const int64_t blocks_per_row = (args.elements + threads * unroll - 1) / (threads * unroll);
    if (args.rows * blocks_per_row == 0) return cudaSuccess;
    return launch(step_kernel, args.rows * blocks_per_row, threads, stream, args, blocks_per_row);
}

}  // namespace resynth
