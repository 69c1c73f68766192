// The per-element arithmetic of similarity, shared by every CPU kernel and by CUDA.
#pragma once

#include <math.h>
#include <stdint.h>

#include "resynth/host_device.h"
#include "resynth/similarity.h"

namespace resynth {

// Sums over one pair of rows x, y: all that a cosine needs once |x|² is known.
template <class Real>
struct Moments {
    Real dot;  // x · y
    Real yy;   // y · y
};

// A squared norm in this range neither overflowed nor lost digits to subnormals, and the product of two is a normal
// float. Outside of it (zero, subnormal, huge, NaN) the row is summed again in double, where no float can overflow.
RESYNTH_HD bool is_exact(float squared_norm) { return (squared_norm >= 0x1p-60f) & (squared_norm <= 0x1p60f); }

RESYNTH_HD float cosine(float dot, float xx, float yy) {
    const float value = dot / sqrtf(xx * yy);
    return value > 1.0f ? 1.0f : value < -1.0f ? -1.0f : value;
}

// Zero vectors point nowhere: their cosine is 0. A non-finite row gives NaN.
RESYNTH_HD float cosine(double dot, double xx, double yy) {
    if (!(isfinite(xx) && isfinite(yy))) return NAN;
    if (xx == 0.0 || yy == 0.0) return 0.0f;
    const double value = dot / (sqrt(xx) * sqrt(yy));
    return static_cast<float>(value > 1.0 ? 1.0 : value < -1.0 ? -1.0 : value);
}

// Folds the cosines of one group into its score. The mean is summed in double: its error must not grow with the group.
struct Reduction {
    double value;
    int64_t count;
};

RESYNTH_HD Reduction empty_group() { return {-INFINITY, 0}; }

RESYNTH_HD void fold(Reduction& group, float similarity, Reduce reduce) {
    if (group.count++ == 0)
        group.value = similarity;
    else if (reduce == Reduce::mean)
        group.value += similarity;
    else if (similarity > group.value || isnan(similarity))  // a NaN, once in, stays
        group.value = similarity;
}

RESYNTH_HD float score_of(const Reduction& group, Reduce reduce) {
    return static_cast<float>(reduce == Reduce::mean && group.count > 1 ? group.value / group.count : group.value);
}

// The two highest scores seen. merge() is associative and commutative: ties go to the lower index in any order.
struct Leader {
    int64_t best;  // -1: none yet
    float first;
    float second;
};

RESYNTH_HD Leader no_leader() { return {-1, -INFINITY, -INFINITY}; }

RESYNTH_HD Leader merge(const Leader& a, const Leader& b) {
    if (b.best < 0) return a;
    if (a.best < 0) return b;
    const bool a_leads = a.first > b.first || (a.first == b.first && a.best < b.best);
    const Leader& ahead = a_leads ? a : b;
    const Leader& behind = a_leads ? b : a;
    return {ahead.best, ahead.first, ahead.second > behind.first ? ahead.second : behind.first};
}

RESYNTH_HD Leader leader_of_one(int64_t candidate, float score) {
    return {score > -INFINITY ? candidate : -1, score, -INFINITY};
}

RESYNTH_HD float margin_of(const Leader& leader) { return leader.best < 0 ? 0.0f : leader.first - leader.second; }

}  // namespace resynth
