// What CPU and CUDA share: which of two rows goes first, and scores that float sums cannot give.
#pragma once

#include <math.h>
#include <stdint.h>

#include "resynth/host_device.h"

namespace resynth {

// Whether (score, index) ranks before (other_score, other_index).
RESYNTH_HD bool ranks_before(float score, int64_t index, float other_score, int64_t other_index) {
    return score > other_score || (score == other_score && index < other_index);
}

RESYNTH_HD float clamped_cosine(float value) { return value > 1.0f ? 1.0f : value < -1.0f ? -1.0f : value; }

}  // namespace resynth
