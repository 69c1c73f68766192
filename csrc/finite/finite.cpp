#include "finite/math.h"

namespace resynth {

void faults(const FaultsArgs& args) {
    int found = 0;
    for (int64_t i = 0; i < args.size; ++i) found |= faulty(args.values[i]);
    *args.found += found;
}

}  // namespace resynth
