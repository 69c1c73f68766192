// The function that each instruction set implements in a file of its own.
#pragma once

#include <cstdint>

namespace resynth {

using NoiseKernel = void (*)(uint64_t seed, uint32_t call, int64_t elements, float* out);  // out: (elements), one row

void noise_serial(uint64_t seed, uint32_t call, int64_t elements, float* out);
void noise_avx2(uint64_t seed, uint32_t call, int64_t elements, float* out);
void noise_avx512(uint64_t seed, uint32_t call, int64_t elements, float* out);

}  // namespace resynth
