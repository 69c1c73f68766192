#include "resynth/finite.h"

#include <bit>

namespace resynth {

// On the bits, so that the loop becomes vectors: an exponent of all ones, and no other, carries into the sign.
void faults(const FaultsArgs& args) {
    constexpr uint32_t exponent = 0x7f800000u, one = 0x00800000u;
    uint32_t seen = 0;
    for (int64_t i = 0; i < args.size; ++i) seen |= (std::bit_cast<uint32_t>(args.values[i]) & exponent) + one;
    *args.found += static_cast<int32_t>(seen >> 31);
}

}  // namespace resynth
