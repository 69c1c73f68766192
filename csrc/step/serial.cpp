#include "step/lanes.h"

namespace resynth {

// Every processor's base instruction set has vectors of 16 bytes.
void step_serial(const StepRow& row) { step_row<float __attribute__((vector_size(16)))>(row); }

}  // namespace resynth
