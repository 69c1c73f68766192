#include "resynth/step.h"

#include "dispatch.h"
#include "step/rows.h"

namespace resynth {
namespace {

StepRow row_of(const StepArgs& args, int64_t r) {
    const StepWeights& weights = args.weights[r];
    const int64_t first = r * args.elements;
    const auto of = [first](auto* array) { return array ? array + first : nullptr; };
    StepRow row{};
    row.elements = args.elements;
    row.out = args.out + first;
    row.guided = of(args.guided);
    row.scaled = of(args.scaled);
    row.input_scale = weights.input_scale;
    if (weights.outputs[0] != 0.0f || args.guided) {
        row.output = of(args.outputs[0]);
        row.unconditional = of(args.unconditional);
        row.guidance = weights.guidance;
        row.output_weight = weights.outputs[0];
    }
    const auto add = [&](const float* array, float weight) {
        if (array && weight != 0.0f) row.term[row.terms++] = {array + first, weight};
    };
    for (int i = 0; i < step_history; ++i) add(args.samples[i], weights.samples[i]);
    for (int j = 1; j < step_history; ++j) add(args.outputs[j], weights.outputs[j]);
    add(args.noise, weights.noise);
    return row;
}

}  // namespace

void step(const StepArgs& args) {
    // No AVX-512 form: the kernel waits for memory.
    constexpr Variants<StepKernel> variants{.serial = step_serial, .avx2 = RESYNTH_ON_X86(step_avx2)};
    const StepKernel kernel = variants.choose();
    for (int64_t r = 0; r < args.rows; ++r) kernel(row_of(args, r));
}

}  // namespace resynth
