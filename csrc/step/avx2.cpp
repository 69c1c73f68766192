#include "step/lanes.h"

namespace resynth {

void step_avx2(const StepRow& row) { step_row<float __attribute__((vector_size(32)))>(row); }

}  // namespace resynth
