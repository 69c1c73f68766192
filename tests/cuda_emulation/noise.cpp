// The unchanged CUDA source under the emulation header, behind a C function that ctypes can call.
#include "noise/noise.cu"

extern "C" int64_t emulated_noise(const uint64_t* seeds, const uint32_t* calls, int64_t rows, int64_t elements,
                                  float* out) {
    return resynth::noise_cuda({seeds, calls, rows, elements, out}, nullptr);
}
