// Exact order statistics by counting: linear in the number of values, whatever their distribution.
#pragma once

#include <string.h>

#include "texture/cpu.h"

namespace resynth {
namespace {

// Keys of values that are not negative, in the same order.
inline uint32_t key_of(float value) {
    uint32_t key;
    memcpy(&key, &value, sizeof key);
    return key;
}

inline float value_of(uint32_t key) {
    float value;
    memcpy(&value, &key, sizeof value);
    return value;
}

constexpr int most_ranks = 2 * magnitude_quantiles;

inline void sort_few(uint32_t* keys, int64_t count) {
    for (int64_t i = 1; i < count; ++i) {
        const uint32_t key = keys[i];
        int64_t k = i;
        for (; k > 0 && keys[k - 1] > key; --k) keys[k] = keys[k - 1];
        keys[k] = key;
    }
}

// found[i] = the ranks[i]-th smallest of `keys`, which may be reordered; ranks ascend, at most most_ranks of them.
inline void select(uint32_t* keys, int64_t count, const int64_t* ranks, int wanted, uint32_t* found, Arena arena) {
    constexpr int64_t few = 24;
    if (count <= few) {
        sort_few(keys, count);
        for (int i = 0; i < wanted; ++i) found[i] = keys[ranks[i]];
        return;
    }
    uint32_t lowest = keys[0], highest = keys[0];
    for (int64_t i = 0; i < count; ++i) {
        lowest = keys[i] < lowest ? keys[i] : lowest;
        highest = keys[i] > highest ? keys[i] : highest;
    }
    // About as many bins as values, so that clearing and scanning the bins costs no more than reading the values.
    int bits = 4, width = 0;
    while (bits < 13 && (int64_t{1} << (bits + 1)) <= count) ++bits;
    while (width < 32 && (uint64_t{highest - lowest} >> width) != 0) ++width;
    const int shift = width > bits ? width - bits : 0;
    const int64_t bins = int64_t{(highest - lowest) >> shift} + 1;

    uint32_t* counts = arena.take<uint32_t>(bins);
    memset(counts, 0, static_cast<size_t>(bins) * sizeof *counts);
    for (int64_t i = 0; i < count; ++i) ++counts[(keys[i] - lowest) >> shift];

    // The values of each bin that contains a rank are gathered and searched for it.
    struct Slot {
        int64_t begin, size, before;
        int first, ranks;
    } slots[most_ranks];
    int used = 0;
    int64_t before = 0, gathered = 0;
    for (int64_t bin = 0, i = 0; bin < bins && i < wanted; ++bin) {
        const int64_t size = counts[bin];
        counts[bin] = most_ranks;  // none
        if (ranks[i] < before + size) {
            Slot& slot = slots[used];
            slot = {gathered, size, before, static_cast<int>(i), 0};
            for (; i < wanted && ranks[i] < before + size; ++i, ++slot.ranks)
                if (shift == 0) found[i] = lowest + static_cast<uint32_t>(bin);
            counts[bin] = static_cast<uint32_t>(used++);
            gathered += size;
        }
        before += size;
        if (i == wanted)
            for (int64_t rest = bin + 1; rest < bins; ++rest) counts[rest] = most_ranks;
    }
    if (shift == 0) return;

    uint32_t *pool = arena.take<uint32_t>(gathered), *ends[most_ranks];
    for (int k = 0; k < used; ++k) ends[k] = pool + slots[k].begin;
    for (int64_t i = 0; i < count; ++i) {
        const uint32_t slot = counts[(keys[i] - lowest) >> shift];
        if (slot != most_ranks) *ends[slot]++ = keys[i];
    }
    for (int k = 0; k < used; ++k) {
        const Slot& slot = slots[k];
        int64_t inner[most_ranks];
        for (int i = 0; i < slot.ranks; ++i) inner[i] = ranks[slot.first + i] - slot.before;
        select(pool + slot.begin, slot.size, inner, slot.ranks, found + slot.first, arena);
    }
}

// Percentiles with linear interpolation between the two nearest values, as keys: `value` turns a key into a number.
template <int wanted, class Value>
void quantiles(uint32_t* keys, int64_t count, double (*percent)(int), Value value, double* out, Arena arena) {
    int64_t ranks[2 * wanted];
    double fraction[wanted];
    for (int k = 0; k < wanted; ++k) {
        const Between between = between_ranks(percent(k), count);
        fraction[k] = between.fraction;
        ranks[2 * k] = between.below;
        ranks[2 * k + 1] = between.above;
    }
    // The interleaved ranks may not ascend. They are sorted for the search and put back in order afterwards.
    int64_t sorted[2 * wanted];
    int order[2 * wanted];
    for (int i = 0; i < 2 * wanted; ++i) {
        int k = i;
        for (; k > 0 && sorted[k - 1] > ranks[i]; --k) sorted[k] = sorted[k - 1], order[k] = order[k - 1];
        sorted[k] = ranks[i], order[k] = i;
    }
    uint32_t found[2 * wanted], in_place[2 * wanted];
    select(keys, count, sorted, 2 * wanted, found, arena);
    for (int i = 0; i < 2 * wanted; ++i) in_place[order[i]] = found[i];
    for (int k = 0; k < wanted; ++k) {
        const double low = value(in_place[2 * k]), high = value(in_place[2 * k + 1]);
        out[k] = low + (high - low) * fraction[k];
    }
}

}  // namespace
}  // namespace resynth
