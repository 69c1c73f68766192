// Offsets of the blocks of features, for a picture of a given side.
#pragma once

#include <stdint.h>

#include "resynth/host_device.h"

namespace resynth {

constexpr int residual_filters = 4;  // order 1, 2, 3 and the 3 x 3 square
constexpr int co_occurrence_bins = 125, pattern_bins = 256, chroma_bins = 81;
constexpr int residual_numbers = 5, pattern_scales = 3, chroma_maps = 6;
constexpr int gradient_scales = 4, orientations = 8;
constexpr int magnitude_quantiles = 7, contrast_quantiles = 5, colour_quantiles = 7;
constexpr int gradient_numbers = orientations + 2 + magnitude_quantiles + contrast_quantiles;
constexpr int colour_channels = 4, colour_bins = 16;
constexpr int colour_numbers = colour_channels * (2 + colour_quantiles) + 2 * colour_bins + 6 + 3;
constexpr int most_wavelet_levels = 5;

RESYNTH_HD int wavelet_levels(int64_t side) {
    int levels = 0;
    for (; side % 2 == 0 && side >= 16 && levels < most_wavelet_levels; side /= 2) ++levels;
    return levels;
}

// Offsets into one picture's row of features.
struct TextureLayout {
    int64_t srm, srm_half, residual, residual_half, lbp, dct, wavelet, gradient, colour, chroma, spectrum, dimension;
};

RESYNTH_HD TextureLayout texture_layout(int64_t side) {
    TextureLayout at;
    at.srm = 0;
    at.srm_half = at.srm + residual_filters * co_occurrence_bins;
    at.residual = at.srm_half + residual_filters * co_occurrence_bins;
    at.residual_half = at.residual + 2 * residual_filters * residual_numbers;
    at.lbp = at.residual_half + 2 * residual_filters * residual_numbers;
    at.dct = at.lbp + pattern_scales * pattern_bins;
    at.wavelet = at.dct + 4 * 64;
    at.gradient = at.wavelet + 9 * (2 + 3 * (wavelet_levels(side) - 1));
    at.colour = at.gradient + gradient_scales * gradient_numbers;
    at.chroma = at.colour + colour_numbers;
    at.spectrum = at.chroma + chroma_maps * chroma_bins;
    at.dimension = at.spectrum + side / 4;
    return at;
}

}  // namespace resynth
