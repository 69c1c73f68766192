#include "texture/describe.h"

namespace resynth {

void describe_serial(const uint8_t* picture, int64_t side, float* features, void* scratch) {
    describe(picture, side, features, scratch);
}

}  // namespace resynth
