// Blocks that count: residual co-occurrences with the residuals' moments, local binary patterns, chroma changes.
#pragma once

#include "texture/cpu.h"

namespace resynth {
namespace {

struct Difference1 {
    int64_t step;
    int32_t operator()(const int32_t* at) const { return difference1(at, step); }
};
struct Difference2 {
    int64_t step;
    int32_t operator()(const int32_t* at) const { return difference2(at, step); }
};
struct Difference3 {
    int64_t step;
    int32_t operator()(const int32_t* at) const { return difference3(at, step); }
};
struct Square {
    int64_t step;
    int32_t operator()(const int32_t* at) const { return square_residual(at, step); }
};

struct Residuals {
    Histogram<co_occurrence_bins> counts;
    ResidualSums sums[2];  // along rows, along columns
};

inline void add(ResidualSums& total, const int32_t* line, int64_t count, int32_t unit) {
    double sum = 0, magnitude = 0, squares = 0, fourths = 0;
    int32_t few = 0, many = 0;
#pragma omp simd reduction(+ : sum, magnitude, squares, fourths)
    for (int64_t i = 0; i < count; ++i) {
        const double value = line[i], square = value * value;
        sum += value;
        magnitude += fabs(value);
        squares += square;
        fourths += square * square;
    }
    for (int64_t i = 0; i < count; ++i) {
        const int32_t size = line[i] < 0 ? -line[i] : line[i];
        few += size < unit;
        many += size > 8 * unit;
    }
    total.sum += sum;
    total.magnitude += magnitude;
    total.squares += squares;
    total.fourths += fourths;
    total.few += few;
    total.many += many;
}

inline void count_triples(const uint8_t* a, const uint8_t* b, const uint8_t* c, int64_t count, uint8_t* codes,
                          Histogram<co_occurrence_bins>& counts) {
    for (int64_t i = 0; i < count; ++i) codes[i] = static_cast<uint8_t>((a[i] * 5 + b[i]) * 5 + c[i]);
    counts.add(codes, count);
}

// One filter's map of (height, width), counted along rows and, or, columns.
template <class Filter>
void count_residuals(Map<const int32_t> g, Filter filter, int64_t height, int64_t width, bool rows, bool columns,
                     int32_t unit, int quantiser, Residuals& into, Arena arena) {
    int32_t* line = arena.take<int32_t>(width);
    uint8_t *codes = arena.take<uint8_t>(width), *levels[3];
    for (uint8_t*& row : levels) row = arena.take<uint8_t>(width);
    const int32_t half = quantiser * unit / 2;
    for (int64_t y = 0; y < height; ++y) {
        const int32_t* at = g.row(y);
        uint8_t* level = levels[y % 3];
        for (int64_t x = 0; x < width; ++x) line[x] = filter(at + x);
        for (int64_t x = 0; x < width; ++x) level[x] = quantise(line[x], half);
        add(into.sums[rows ? 0 : 1], line, width, unit);
        if (rows) count_triples(level, level + 1, level + 2, width - 2, codes, into.counts);
        if (columns && y >= 2)
            count_triples(levels[(y - 2) % 3], levels[(y - 1) % 3], level, width, codes, into.counts);
    }
}

inline void write_co_occurrences(const uint32_t* counts, float* out) {
    int64_t total = 0;
    for (int bin = 0; bin < co_occurrence_bins; ++bin) total += 4 * int64_t{counts[bin]};
    for (int bin = 0; bin < co_occurrence_bins; ++bin) out[bin] = root_share(symmetric_count(counts, bin), total);
}

template <class Filter>
void describe_filter(Map<const int32_t> g, int filter, int32_t unit, float* co_occurrences, float* moments,
                     Arena arena) {
    const int64_t side = g.side, kept = side - residual_reach(filter);
    const int quantiser = residual_quantiser(filter);
    Residuals residuals;
    count_residuals(g, Filter{1}, side, kept, true, false, unit, quantiser, residuals, arena);
    count_residuals(g, Filter{side}, kept, side, false, true, unit, quantiser, residuals, arena);
    write_co_occurrences(residuals.counts.finish(), co_occurrences);
    for (int way = 0; way < 2; ++way)
        write_residual(residuals.sums[way], static_cast<double>(side * kept), unit, moments + way * residual_numbers);
}

template <>
inline void describe_filter<Square>(Map<const int32_t> g, int filter, int32_t unit, float* co_occurrences,
                                    float* moments, Arena arena) {
    const int64_t kept = g.side - residual_reach(filter);
    Residuals residuals;
    count_residuals(g, Square{g.side}, kept, kept, true, true, unit, residual_quantiser(filter), residuals, arena);
    write_co_occurrences(residuals.counts.finish(), co_occurrences);
    for (int way = 0; way < 2; ++way)  // one map serves both directions
        write_residual(residuals.sums[0], static_cast<double>(kept * kept), unit, moments + way * residual_numbers);
}

inline void residuals(Map<const int32_t> g, int32_t unit, float* co_occurrences, float* moments, Arena arena) {
    constexpr int both = 2 * residual_numbers;
    describe_filter<Difference1>(g, 0, unit, co_occurrences, moments, arena);
    describe_filter<Difference2>(g, 1, unit, co_occurrences + co_occurrence_bins, moments + both, arena);
    describe_filter<Difference3>(g, 2, unit, co_occurrences + 2 * co_occurrence_bins, moments + 2 * both, arena);
    describe_filter<Square>(g, 3, unit, co_occurrences + 3 * co_occurrence_bins, moments + 3 * both, arena);
}

inline void patterns(Map<const int32_t> g, int32_t grey_level, float* out, Arena arena) {
    const int64_t kept = g.side - 2;
    uint8_t* codes = arena.take<uint8_t>(kept);
    Histogram<pattern_bins> counts;
    for (int64_t y = 0; y < kept; ++y) {
        const int32_t *a = g.row(y), *b = g.row(y + 1), *c = g.row(y + 2);
        for (int64_t x = 0; x < kept; ++x) codes[x] = static_cast<uint8_t>(pattern(a + x, b + x, c + x, grey_level));
        counts.add(codes, kept);
    }
    write_root_shares<pattern_bins>(counts.finish(), out);
}

// One difference of two colours: how it changes along rows, then along columns.
inline void chroma_changes(Map<const uint8_t> first, Map<const uint8_t> second, float* out, Arena arena) {
    const int64_t side = first.side;
    int16_t* lines[2] = {arena.take<int16_t>(side), arena.take<int16_t>(side)};
    uint8_t *along = arena.take<uint8_t>(side), *down[2] = {arena.take<uint8_t>(side), arena.take<uint8_t>(side)};
    uint8_t* codes = arena.take<uint8_t>(side);
    Histogram<chroma_bins> rows, columns;
    for (int64_t y = 0; y < side; ++y) {
        const uint8_t *a = first.row(y), *b = second.row(y);
        int16_t *line = lines[y % 2], *before = lines[(y + 1) % 2];
        for (int64_t x = 0; x < side; ++x) line[x] = static_cast<int16_t>(a[x] - b[x]);
        for (int64_t x = 0; x + 1 < side; ++x) along[x] = static_cast<uint8_t>(clipped_change(line[x], line[x + 1]));
        for (int64_t x = 0; x + 2 < side; ++x) codes[x] = static_cast<uint8_t>(along[x] * 9 + along[x + 1]);
        rows.add(codes, side - 2);
        if (y == 0) continue;
        uint8_t *change = down[y % 2], *change_before = down[(y + 1) % 2];
        for (int64_t x = 0; x < side; ++x) change[x] = static_cast<uint8_t>(clipped_change(before[x], line[x]));
        if (y == 1) continue;
        for (int64_t x = 0; x < side; ++x) codes[x] = static_cast<uint8_t>(change_before[x] * 9 + change[x]);
        columns.add(codes, side);
    }
    write_root_shares<chroma_bins>(rows.finish(), out);
    write_root_shares<chroma_bins>(columns.finish(), out + chroma_bins);
}

}  // namespace
}  // namespace resynth
