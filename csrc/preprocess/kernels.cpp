#include "dispatch.h"
#include "preprocess/rows.h"

namespace resynth {

PreprocessKernels preprocess_kernels() {
    using Kernels = PreprocessKernels (*)();
    constexpr Variants<Kernels> variants{.serial = preprocess_serial, .avx2 = RESYNTH_ON_X86(preprocess_avx2)};
    return variants.choose()();
}

}  // namespace resynth
