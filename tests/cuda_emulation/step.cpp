// The unchanged CUDA source under the emulation header, behind a C function that ctypes can call.
#include "step/step.cu"

// arrays: 4 samples, 4 outputs, unconditional, noise, out, guided, scaled; null where absent.
extern "C" int64_t emulated_step(const resynth::StepWeights* weights, int64_t rows, int64_t elements, float** arrays) {
    resynth::StepArgs args{weights, rows, elements, {}, {}, arrays[8], arrays[9], arrays[10], arrays[11], arrays[12]};
    for (int i = 0; i < resynth::step_history; ++i) {
        args.samples[i] = arrays[i];
        args.outputs[i] = arrays[resynth::step_history + i];
    }
    return resynth::step_cuda(args, nullptr);
}
