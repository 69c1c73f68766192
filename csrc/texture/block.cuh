// Operations of all threads of a block. Every thread must call them, and every thread gets the result.
#pragma once

#include <stdint.h>

#include "texture/math.h"

namespace resynth {
namespace {

constexpr int threads = 128;

// Adds in the same order on every device, so a picture's features do not depend on other pictures.
template <class Number>
__device__ Number block_sum(Number mine) {
    __shared__ Number parts[threads];
    const int me = static_cast<int>(threadIdx.x);
    __syncthreads();  // every thread has read the previous sum
    parts[me] = mine;
    __syncthreads();
    for (int other = threads / 2; other > 0; other /= 2) {
        if (me < other) parts[me] += parts[me + other];
        __syncthreads();
    }
    return parts[0];
}

__device__ void block_clear(uint32_t* counts, int bins) {
    __syncthreads();
    for (int bin = static_cast<int>(threadIdx.x); bin < bins; bin += threads) counts[bin] = 0;
    __syncthreads();
}

// The rank-th smallest key, eight bits at a time.
__device__ uint32_t block_select(const uint32_t* keys, int64_t count, int64_t rank) {
    __shared__ uint32_t counts[256];
    uint32_t prefix = 0, known = 0;
    for (int shift = 24; shift >= 0; shift -= 8) {
        block_clear(counts, 256);
        for (int64_t i = threadIdx.x; i < count; i += threads)
            if ((keys[i] & known) == prefix) atomicAdd(&counts[keys[i] >> shift & 255], 1u);
        __syncthreads();
        uint32_t bin = 0;
        for (; rank >= counts[bin]; ++bin) rank -= counts[bin];
        prefix |= bin << shift;
        known |= 255u << shift;
    }
    return prefix;
}

template <class Value>
__device__ double block_quantile(const uint32_t* keys, int64_t count, double percent, Value value) {
    const Between between = between_ranks(percent, count);
    const double low = value(block_select(keys, count, between.below));
    const double high = between.above == between.below ? low : value(block_select(keys, count, between.above));
    return low + (high - low) * between.fraction;
}

// Mean and standard deviation of value(i), i < count.
struct BlockSpread {
    double mean, deviation;
};

template <class Value>
__device__ BlockSpread block_spread(int64_t count, Value value) {
    double sum = 0, squares = 0;
    for (int64_t i = threadIdx.x; i < count; i += threads) sum += value(i);
    const double mean = block_sum(sum) / static_cast<double>(count);
    for (int64_t i = threadIdx.x; i < count; i += threads) {
        const double from_mean = value(i) - mean;
        squares += from_mean * from_mean;
    }
    return {mean, sqrt(block_sum(squares) / static_cast<double>(count))};
}

__device__ uint32_t bits_of(float value) {
    union {
        float number;
        uint32_t bits;
    } both{value};
    return both.bits;
}

__device__ double number_of(uint32_t bits) {
    union {
        uint32_t bits;
        float number;
    } both{bits};
    return both.number;
}

}  // namespace
}  // namespace resynth
