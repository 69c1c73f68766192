#include "similarity/score.h"

#include "dispatch.h"
#include "scratch.h"

namespace resynth {

void score(const ScoreArgs& args) {
    constexpr Variants<ScoreKernel> variants{
        .serial = score_serial, .avx2 = RESYNTH_ON_X86(score_avx2), .avx512 = RESYNTH_ON_X86(score_avx512)};
    static thread_local Scratch<double> scratch;
    const ScoreKernel kernel = variants.choose();
    const int64_t c = args.candidate_count;
    for (int64_t p = 0; p < args.probe_count; ++p) {
        const int64_t references = args.offsets[(p + 1) * c] - args.offsets[p * c];
        kernel(args, p, scratch.of(score_scratch(args, references)));
    }
    scratch.trim();
}

}  // namespace resynth
