#include "similarity/score_lanes.h"

namespace resynth {

void score_avx2(const ScoreArgs& args, int64_t p, double* scratch) {
    score_probe<double __attribute__((vector_size(32)))>(args, p, scratch);
}

}  // namespace resynth
