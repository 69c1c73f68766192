// The test of one number, shared by the CPU kernel and by CUDA.
#pragma once

#include <cfloat>
#include <cmath>

#include "resynth/finite.h"
#include "resynth/host_device.h"

namespace resynth {

RESYNTH_HD bool faulty(float value) { return !(fabsf(value) <= FLT_MAX); }

}  // namespace resynth
