// What differs between instruction sets: one function, one file each.
#pragma once

#include "similarity/math.h"

namespace resynth {

using MomentsKernel = Moments<float> (*)(const float* x, const float* y, int64_t dimension);  // x, y: (dimension)

Moments<float> moments_serial(const float* x, const float* y, int64_t dimension);
Moments<float> moments_avx2(const float* x, const float* y, int64_t dimension);

}  // namespace resynth
