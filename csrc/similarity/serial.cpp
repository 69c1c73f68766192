#include "similarity/score_lanes.h"

namespace resynth {

void score_serial(const ScoreArgs& args, int64_t p, double* scratch) {
    score_probe<double __attribute__((vector_size(16)))>(args, p, scratch);
}

}  // namespace resynth
