#include <cstring>

#include "noise/math.h"
#include "noise/rows.h"

namespace resynth {

void noise_serial(uint64_t seed, uint32_t call, int64_t elements, float* out) {
    for (int64_t i = 0; i < elements; i += 4) {
        float four[4];
        normals<OneLane>(seed, call, static_cast<uint32_t>(i / 4), four);
        std::memcpy(out + i, four, (elements - i < 4 ? elements - i : 4) * sizeof(float));
    }
}

}  // namespace resynth
