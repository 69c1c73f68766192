// The arithmetic of the recipe's score, shared by every CPU kernel and by CUDA. Number: a double, or a vector of them.
#pragma once

#include <math.h>
#include <stdint.h>

#include "resynth/host_device.h"
#include "resynth/score.h"

namespace resynth {

// How far the mean of `count` references moves a candidate from what is expected of it: spread / (spread + 1 / count).
RESYNTH_HD double gain_of(double spread, int64_t count) {
    return spread * static_cast<double>(count) / (spread * static_cast<double>(count) + 1.0);
}

// Where a candidate's next picture lies. `base`: content, less the mean of what is expected of all candidates.
template <class Number>
RESYNTH_HD Number posterior(Number base, double weight, Number expected, double gain, Number mean) {
    const Number centre = base + expected * weight;
    return centre + (mean - centre) * gain;
}

RESYNTH_HD double log_likelihood(double squared_distance, double variance, double energy) {
    return -squared_distance / (energy * variance) - log(variance);
}

// 0 for a zero vector; NaN where a sum is not finite.
RESYNTH_HD double cosine_of(double dot, double xx, double yy) { return dot / (sqrt(xx) * sqrt(yy) + 1e-300); }

// The highest so far; a NaN, once in, stays.
RESYNTH_HD double higher(double best, double value) { return value > best || isnan(value) ? value : best; }

// What the references of one probe amount to.
struct ReferenceSums {
    int64_t present;   // candidates that have some
    int64_t compared;  // references that have others of their candidate beside them
    double agreement;  // sum of their cosines with the mean of those others
};

// `cosine`: the highest with a candidate's mean reference. Half of what references have in common is subtracted: some
// captions leave more open than others.
RESYNTH_HD double consistency_of(double cosine, const ReferenceSums& sums) {
    if (sums.present == 0) return NAN;
    return cosine - 0.5 * (sums.compared ? sums.agreement / static_cast<double>(sums.compared) : 0.0);
}

// Whether prior g adds its advantage: a candidate without another one lies at the content, in no direction of it.
RESYNTH_HD bool has_advantage(const ScoreArgs& args, int64_t g) {
    return args.advantage[g] > 0.0 && !args.content && args.candidate_count > 1;
}

}  // namespace resynth
