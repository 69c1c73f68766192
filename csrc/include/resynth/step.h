// One step of a sampler for a batch of rows: guidance, the linear update of a step table, and the next call's input.
#pragma once

#include <cstdint>

namespace resynth {

constexpr int step_history = 4;  // this call's sample or output and three earlier ones

// What one row multiplies; rows of one call may be at different steps of different tables. An array whose weight is
// zero is not read: a row with a short history may sit beside one with a long history, over memory that holds nothing.
struct StepWeights {
    float samples[step_history];  // newest first
    float outputs[step_history];  // newest first
    float noise;
    float guidance;
    float input_scale;  // of the next model call
};

// Raw pointers to arrays (rows, elements), C order, caller-owned; null where absent.
//
//     m = unconditional + guidance · (outputs[0] − unconditional)         or outputs[0], without `unconditional`
//     x = outputs · weights, with m for outputs[0], + samples · weights + noise · weight
//
// An array that is written may be one that is read, exactly, but must not overlap one in part.
struct StepArgs {
    const StepWeights* weights;  // (rows)
    int64_t rows;
    int64_t elements;
    const float* samples[step_history];
    const float* outputs[step_history];
    const float* unconditional;
    const float* noise;
    float* out;     // x
    float* guided;  // m; or null
    float* scaled;  // x · input_scale; or null
};

// Runs on the calling thread with the kernel of isa() (dispatch.h); allocates nothing. Every instruction set, and CUDA,
// gives the same bits.
void step(const StepArgs& args);

}  // namespace resynth
