// The loop over a row, on the compiler's own vectors of any width.
#pragma once

#include <cstring>

#include "step/rows.h"

namespace resynth {
namespace {

template <class Floats>
Floats load(const float* from) {
    Floats value;
    std::memcpy(&value, from, sizeof value);
    return value;
}

template <class Floats>
void store(float* to, Floats value) {
    std::memcpy(to, &value, sizeof value);
}

// Elements i … i + count · lanes − 1. Everything is read before anything is written: arrays may be one and the same.
template <class Floats, int count>
void step_at(const StepRow& row, int64_t i) {
    constexpr int lanes = sizeof(Floats) / sizeof(float);
    Floats output[count] = {}, sum[count] = {};
    if (row.output) {
        for (int k = 0; k < count; ++k) {
            output[k] = load<Floats>(row.output + i + k * lanes);
            if (row.unconditional)
                output[k] = guide(load<Floats>(row.unconditional + i + k * lanes), output[k], row.guidance);
        }
        if (row.output_weight != 0.0f)
            for (int k = 0; k < count; ++k) accumulate(sum[k], row.output_weight, output[k]);
    }
    for (int t = 0; t < row.terms; ++t)
        for (int k = 0; k < count; ++k)
            accumulate(sum[k], row.term[t].weight, load<Floats>(row.term[t].values + i + k * lanes));
    for (int k = 0; k < count; ++k) {
        store(row.out + i + k * lanes, sum[k]);
        if (row.guided) store(row.guided + i + k * lanes, output[k]);
        if (row.scaled) store(row.scaled + i + k * lanes, sum[k] * row.input_scale);
    }
}

template <class Floats>
void step_row(const StepRow& given) {
    const StepRow row = given;  // no store can change this copy: all of it stays in registers
    constexpr int unroll = 4, lanes = sizeof(Floats) / sizeof(float);
    int64_t i = 0;
    for (; i + unroll * lanes <= row.elements; i += unroll * lanes) step_at<Floats, unroll>(row, i);
    for (; i < row.elements; ++i) step_at<float, 1>(row, i);
}

}  // namespace
}  // namespace resynth
