// Weights of antialiased resampling, shared by the CPU and CUDA. They are Pillow's, to the last bit.
#pragma once

#include <math.h>
#include <stdint.h>

#include "resynth/host_device.h"
#include "resynth/preprocess.h"

namespace resynth {

constexpr int weight_bits = 22;  // 32 less 8 for the pixel and 2 for the overshoot of a filter

RESYNTH_HD double filter_support(Filter filter) {
    return filter == Filter::box ? 0.5 : filter == Filter::bilinear ? 1.0 : filter == Filter::bicubic ? 2.0 : 3.0;
}

RESYNTH_HD double sinc(double x) {
    constexpr double pi = 3.14159265358979323846;
    return x == 0.0 ? 1.0 : sin(x * pi) / (x * pi);
}

RESYNTH_HD double filter_at(Filter filter, double x) {
    const double size = x < 0 ? -x : x;
    switch (filter) {
        case Filter::box:
            return x > -0.5 && x <= 0.5 ? 1.0 : 0.0;
        case Filter::bilinear:
            return size < 1 ? 1 - size : 0.0;
        case Filter::bicubic: {
            constexpr double a = -0.5;
            if (size < 1) return ((a + 2) * size - (a + 3)) * size * size + 1;
            return size < 2 ? (((size - 5) * size + 8) * size - 4) * a : 0.0;
        }
        default:
            return x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0.0;
    }
}

// How one side is resampled.
struct Sampling {
    int64_t source, target;
    Filter filter;
    double scale, stretch, support;
};

RESYNTH_HD Sampling sampling_of(int64_t source, int64_t target, Filter filter) {
    const double scale = static_cast<double>(source) / static_cast<double>(target);
    const double stretch = scale < 1 ? 1 : scale;  // a filter narrower than a pixel would skip some
    return {source, target, filter, scale, stretch, filter_support(filter) * stretch};
}

RESYNTH_HD int64_t most_taps(const Sampling& sampling) { return static_cast<int64_t>(ceil(sampling.support)) * 2 + 1; }

struct Taps {
    int64_t first, count;
};

// The source pixels of target pixel `at`, and their weights, which sum to 1.
RESYNTH_HD Taps taps_of(const Sampling& sampling, int64_t at, double* weights) {
    const double centre = (static_cast<double>(at) + 0.5) * sampling.scale;
    int64_t first = static_cast<int64_t>(centre - sampling.support + 0.5);
    int64_t end = static_cast<int64_t>(centre + sampling.support + 0.5);
    first = first < 0 ? 0 : first;
    end = end > sampling.source ? sampling.source : end;
    double sum = 0;
    const double step = 1.0 / sampling.stretch;
    for (int64_t k = 0; k < end - first; ++k) {
        weights[k] = filter_at(sampling.filter, (static_cast<double>(k + first) - centre + 0.5) * step);
        sum += weights[k];
    }
    if (sum != 0)
        for (int64_t k = 0; k < end - first; ++k) weights[k] /= sum;
    return {first, end - first};
}

RESYNTH_HD int32_t fixed_weight(double weight) {
    const double scaled = weight * (1 << weight_bits);
    return static_cast<int32_t>(weight < 0 ? scaled - 0.5 : scaled + 0.5);
}

constexpr int32_t fixed_half = 1 << (weight_bits - 1);

RESYNTH_HD uint8_t to_byte(int32_t value) { return static_cast<uint8_t>(value < 0 ? 0 : value > 255 ? 255 : value); }

// A byte as the number of 0 … 1 that it stands for.
RESYNTH_HD float unit_of(uint8_t byte) { return static_cast<float>(byte) / 255.0f; }

RESYNTH_HD float in_unit(float value) {  // NaN becomes 0; conditions in a row, as nested ones make no vectors
    const float positive = value > 0 ? value : 0.0f;
    return positive < 1 ? positive : 1.0f;
}

}  // namespace resynth
