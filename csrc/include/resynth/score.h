// The log-likelihood of a picture under each candidate, and the consistency of the picture with any of them.
#pragma once

#include <cstdint>

namespace resynth {

// Raw pointers, C order, caller-owned; all vectors are whitened. The references of probe p and candidate c are
// references[rows[offsets[g]]] … references[rows[offsets[g + 1] - 1]] with g = p * C + c; a group may be empty. The n
// points of a probe (the picture and its perturbed copies) are judged by the same references.
struct ScoreArgs {
    const double* points;      // (P, n, d)
    const double* references;  // (N, d)
    const int64_t* rows;       // (R) 0 <= row < N
    const int64_t* offsets;    // (P * C + 1), from 0, non-decreasing, to R
    const double* content;     // (P, d) subtracted from the points; null: the mean of the candidates' mean references

    // The gallery's prior for the candidates: one for each probe (G = P), or one for all (G = 1).
    const double* means;      // (G, C, d) mean picture of a candidate, content removed; null: zero
    const double* weights;    // (G, C) how far a candidate's mean is trusted, 0 … 1
    const double* spreads;    // (G, C) variance of a candidate's pictures about what is expected, within a cell 1
    const double* advantage;  // (G) weight in the consistency of the cosine with a candidate's expected picture

    int64_t probe_count;      // P >= 1
    int64_t point_count;      // n >= 1
    int64_t candidate_count;  // C >= 1
    int64_t reference_count;  // N >= 0
    int64_t row_count;        // R >= 0
    int64_t prior_count;      // G, 1 or P
    int64_t dimension;        // d >= 1
    double energy;            // variance within a cell, all columns together

    double* scores;       // (P, n, C) log-likelihoods but for a constant, higher is closer
    double* consistency;  // (P, n) low for a picture that no candidate makes; NaN for a probe without references
};

// Runs on the calling thread with the kernel of isa() (dispatch.h), whose bits are the same for all of them. Rows and
// offsets must be valid; a probe without references needs `content`. A value that is not finite makes NaN of what
// depends on it.
void score(const ScoreArgs& args);

}  // namespace resynth
