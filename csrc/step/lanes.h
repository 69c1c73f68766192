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

// Distance of software prefetching; on processors whose hardware prefetcher starts late it saves a tenth of the time.
template <class Floats, int count>
void prefetch(const float* from) {
    constexpr int ahead = 512, line = 64;
    for (int byte = 0; byte < count * static_cast<int>(sizeof(Floats)); byte += line)
        __builtin_prefetch(reinterpret_cast<const char*>(from) + ahead + byte);
}

// Elements i … i + count · lanes − 1. Everything is read before anything is written: arrays may be one and the same.
template <class Floats, int count, bool guidance, int terms>
void step_at(const StepRow& row, int64_t i) {
    constexpr int lanes = sizeof(Floats) / sizeof(float);
    const auto read = [i](const float* array, int k) { return load<Floats>(array + i + k * lanes); };
    Floats output[count] = {}, sum[count] = {};
    if (row.output) {
        if (count > 1) prefetch<Floats, count>(row.output + i);
        if (count > 1 && guidance) prefetch<Floats, count>(row.unconditional + i);
        for (int k = 0; k < count; ++k) output[k] = read(row.output, k);
        if (guidance)
            for (int k = 0; k < count; ++k) output[k] = guide(read(row.unconditional, k), output[k], row.guidance);
        if (row.output_weight != 0.0f)
            for (int k = 0; k < count; ++k) accumulate(sum[k], row.output_weight, output[k]);
    }
    for (int t = 0; t < terms; ++t) {
        if (count > 1) prefetch<Floats, count>(row.term[t].values + i);
        for (int k = 0; k < count; ++k) accumulate(sum[k], row.term[t].weight, read(row.term[t].values, k));
    }
    for (int k = 0; k < count; ++k) {
        store(row.out + i + k * lanes, sum[k]);
        if (row.guided) store(row.guided + i + k * lanes, output[k]);
        if (row.scaled) store(row.scaled + i + k * lanes, sum[k] * row.input_scale);
    }
}

template <class Floats, bool guidance, int terms>
void step_elements(const StepRow& given) {
    const StepRow row = given;  // no store can change this copy: all of it stays in registers
    constexpr int unroll = 4, lanes = sizeof(Floats) / sizeof(float);
    int64_t i = 0;
    for (; i + unroll * lanes <= row.elements; i += unroll * lanes) step_at<Floats, unroll, guidance, terms>(row, i);
    for (; i < row.elements; ++i) step_at<float, 1, guidance, terms>(row, i);
}

// One loop for each number of terms, so that none contains an inner loop.
template <class Floats, int terms = 0>
void step_row(const StepRow& row) {
    if (row.terms == terms)
        row.unconditional ? step_elements<Floats, true, terms>(row) : step_elements<Floats, false, terms>(row);
    else if constexpr (terms < StepRow::most_terms)
        step_row<Floats, terms + 1>(row);
}

}  // namespace
}  // namespace resynth
