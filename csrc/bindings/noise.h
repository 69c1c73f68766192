// noise's arguments from arrays on any device: shapes only, no element is read.
#pragma once

#include "bindings/check.h"
#include "resynth/noise.h"

namespace resynth::bindings {

template <class Seeds, class Calls, class Out>
NoiseArgs noise_args(const Seeds& seeds, const Calls& calls, const Out& out) {
    constexpr long long longest = 1LL << 34;
    const long long rows = extent(out, 0), elements = extent(out, 1);
    check_shape("seeds", seeds, rows);
    check_shape("calls", calls, rows);
    if (elements > longest) fail("out has %lld columns; at most %lld have counters", elements, longest);
    return {.seeds = seeds.data(), .calls = calls.data(), .rows = rows, .elements = elements, .out = out.data()};
}

}  // namespace resynth::bindings
