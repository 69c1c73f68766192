// The test of one number on a device; the CPU tests bits of many at once.
#pragma once

#include <cfloat>
#include <cmath>

#include "resynth/finite.h"
#include "resynth/host_device.h"

namespace resynth {

RESYNTH_HD bool faulty(float value) { return !(fabsf(value) <= FLT_MAX); }

}  // namespace resynth
