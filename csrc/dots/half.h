// IEEE float16, in which a gallery can store its rows in half the memory.
#pragma once

#include <stdint.h>

#include "resynth/host_device.h"

namespace resynth {

struct Half {
    uint16_t bits;
};

RESYNTH_HD float value(float stored) { return stored; }

// Exact conversion without a special instruction. Exponent and fraction are shifted to their places in a float, and a
// product corrects the exponent's bias, also for subnormals. Infinities and NaN get the float's largest exponent.
RESYNTH_HD float value(Half stored) {
    union {
        uint32_t bits;
        float number;
    } whole = {static_cast<uint32_t>(stored.bits & 0x7fff) << 13};
    whole.number *= 0x1p112f;
    if ((stored.bits & 0x7c00) == 0x7c00) whole.bits |= 0x7f800000u;
    whole.bits |= static_cast<uint32_t>(stored.bits & 0x8000) << 16;
    return whole.number;
}

}  // namespace resynth
