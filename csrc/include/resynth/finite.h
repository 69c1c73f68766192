// How many numbers are not finite: what tells a network that has gone wrong, before its output is believed.
#pragma once

#include <cstdint>

namespace resynth {

// Raw pointers, caller-owned.
struct FaultsArgs {
    const float* values;  // (size)
    int64_t size;
    int32_t* found;  // (1), raised by one at least where any is not finite, else left as it is
};

// Runs on the calling thread; allocates nothing.
void faults(const FaultsArgs& args);

}  // namespace resynth
