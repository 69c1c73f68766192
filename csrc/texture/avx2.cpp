#include "texture/describe.h"

namespace resynth {

void describe_avx2(const uint8_t* picture, int64_t side, float* features, void* scratch) {
    describe(picture, side, features, scratch);
}

}  // namespace resynth
