// Shared by the CPU passes, which are plain loops compiled once for each instruction set. Everything is in an unnamed
// namespace and uses no template of the standard library, so that no object file links another's copy.
#pragma once

#include <stdint.h>

#include "texture/math.h"

namespace resynth {

using TextureKernel = void (*)(const uint8_t* picture, int64_t side, float* features, void* scratch);

// picture: (S, S, 3); features: (texture_dimension(S)); scratch: scratch_bytes(S), aligned to 64 bytes.
void describe_serial(const uint8_t* picture, int64_t side, float* features, void* scratch);
void describe_avx2(const uint8_t* picture, int64_t side, float* features, void* scratch);

// An upper bound for every pass below, tested under the address sanitizer.
static inline int64_t scratch_bytes(int64_t side) { return 64 * side * side + 1024 * side + (1 << 17); }

namespace {

// Scratch memory. It is passed by value, so that a pass's allocations are free again when it returns.
class Arena {
 public:
    explicit Arena(void* memory) : at_(static_cast<char*>(memory)) {}

    template <class Number>
    Number* take(int64_t count) {
        Number* taken = reinterpret_cast<Number*>(at_);
        at_ += (count * static_cast<int64_t>(sizeof(Number)) + 63) / 64 * 64;
        return taken;
    }

 private:
    char* at_;
};

template <class Number>
struct Map {  // a square map, row by row
    Number* data;
    int64_t side;
    Number* row(int64_t y) const { return data + y * side; }
};

// Four tables in turn, because successive increments of one bin would wait for each other.
template <int bins>
class Histogram {
 public:
    void add(const uint8_t* codes, int64_t count) {
        int64_t i = 0;
        for (; i + 4 <= count; i += 4)
            for (int k = 0; k < 4; ++k) ++tables_[k][codes[i + k]];
        for (; i < count; ++i) ++tables_[0][codes[i]];
    }

    uint32_t* finish() {
        for (int bin = 0; bin < bins; ++bin) tables_[0][bin] += tables_[1][bin] + tables_[2][bin] + tables_[3][bin];
        return tables_[0];
    }

 private:
    uint32_t tables_[4][bins] = {};
};

template <int bins>
void write_root_shares(const uint32_t* counts, float* out) {
    int64_t total = 0;
    for (int bin = 0; bin < bins; ++bin) total += counts[bin];
    for (int bin = 0; bin < bins; ++bin) out[bin] = root_share(counts[bin], total);
}

struct Spread {
    double mean, deviation;
};

template <class Number>
Spread spread_of(const Number* values, int64_t count) {
    double sum = 0, squares = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < count; ++i) sum += values[i];
    const double mean = sum / count;
#pragma omp simd reduction(+ : squares)
    for (int64_t i = 0; i < count; ++i) {
        const double from_mean = values[i] - mean;
        squares += from_mean * from_mean;
    }
    return {mean, sqrt(squares / count)};
}

// Sums over 2 x 2: whole numbers stay whole.
inline void halve(Map<const int32_t> from, int32_t* to) {
    const int64_t half = from.side / 2;
    for (int64_t y = 0; y < half; ++y) {
        const int32_t *a = from.row(2 * y), *b = from.row(2 * y + 1);
        for (int64_t x = 0; x < half; ++x) to[y * half + x] = a[2 * x] + a[2 * x + 1] + b[2 * x] + b[2 * x + 1];
    }
}

}  // namespace
}  // namespace resynth
