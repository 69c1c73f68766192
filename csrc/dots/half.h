// IEEE float16: how a gallery may store its rows in half the memory.
#pragma once

#include <stdint.h>

#include "resynth/host_device.h"

namespace resynth {

struct Half {
    uint16_t bits;
};

RESYNTH_HD float value(float stored) { return stored; }

// Exact, without an instruction for it: exponent and fraction move to their places in a float, and a product corrects
// the exponent's bias, which gives subnormals their value too. Infinities and NaN need the float's largest exponent.
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
