// The unchanged CUDA source under the emulation header, behind a C function that ctypes can call.
#include "finite/finite.cu"

extern "C" int64_t emulated_faults(const float* values, int64_t size, int32_t* found) {
    return resynth::faults_cuda({values, size, found}, nullptr);
}
