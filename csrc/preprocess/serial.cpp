#include "preprocess/rows.h"

namespace resynth {

PreprocessKernels preprocess_serial() { return {blend_plain, transpose_plain, round_trip_plain}; }

}  // namespace resynth
