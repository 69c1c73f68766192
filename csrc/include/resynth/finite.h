// Detects values that are not finite, so that the output of a failed network is not used.
#pragma once

#include <cstdint>

namespace resynth {

// Raw pointers, caller-owned.
struct FaultsArgs {
    const float* values;  // (size)
    int64_t size;
    int32_t* found;  // (1), increased by at least one if any value is not finite, else unchanged
};

// Runs on the calling thread; allocates nothing.
void faults(const FaultsArgs& args);

}  // namespace resynth
