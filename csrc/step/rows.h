// The function that each instruction set implements in a file of its own.
#pragma once

#include "step/math.h"

namespace resynth {

// One row, without the arrays whose weight is zero.
struct StepRow {
    struct Term {
        const float* values;
        float weight;
    };

    static constexpr int most_terms = 2 * step_history;  // samples, earlier outputs, noise; in this order

    int64_t elements;
    const float* unconditional;  // null: no guidance
    const float* output;         // null: neither weighted nor kept
    float guidance;
    float output_weight;
    float input_scale;
    int terms;
    Term term[most_terms];
    float* out;
    float* guided;
    float* scaled;
};

using StepKernel = void (*)(const StepRow& row);

void step_serial(const StepRow& row);
void step_avx2(const StepRow& row);

}  // namespace resynth
