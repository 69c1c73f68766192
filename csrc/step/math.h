// The per-element arithmetic of step, shared by every CPU kernel and by CUDA. Floats: a float, or a vector of them.
//
// Each operation is rounded once, and nobody fuses a product into a sum (see CMakeLists.txt): the bits are the same
// everywhere. Nothing is lost by it, as the kernel waits for memory.
#pragma once

#include "resynth/host_device.h"
#include "resynth/step.h"

namespace resynth {

// Classifier-free guidance (Ho & Salimans 2022).
template <class Floats>
RESYNTH_HD Floats guide(Floats unconditional, Floats conditional, float scale) {
    return unconditional + scale * (conditional - unconditional);
}

template <class Floats>
RESYNTH_HD void accumulate(Floats& sum, float weight, Floats term) {
    sum = sum + weight * term;
}

}  // namespace resynth
