// One picture through all blocks.
#pragma once

#include "texture/counts.h"
#include "texture/spectrum.h"
#include "texture/statistics.h"
#include "texture/transforms.h"

namespace resynth {
namespace {

inline void describe(const uint8_t* picture, int64_t side, float* out, void* scratch) {
    const TextureLayout at = texture_layout(side);
    const int64_t pixels = side * side;
    Arena arena(scratch);
    uint8_t *red = arena.take<uint8_t>(pixels), *green = arena.take<uint8_t>(pixels),
            *blue = arena.take<uint8_t>(pixels);
    int32_t *luma = arena.take<int32_t>(pixels), *cb = arena.take<int32_t>(pixels), *cr = arena.take<int32_t>(pixels);
    for (int64_t i = 0; i < pixels; ++i) {
        const int32_t r = picture[3 * i], g = picture[3 * i + 1], b = picture[3 * i + 2];
        red[i] = picture[3 * i], green[i] = picture[3 * i + 1], blue[i] = picture[3 * i + 2];
        luma[i] = luma_of(r, g, b), cb[i] = cb_of(r, g, b), cr[i] = cr_of(r, g, b);
    }
    const Map<const uint8_t> rgb[3] = {{red, side}, {green, side}, {blue, side}};
    const Map<const int32_t> ycc[3] = {{luma, side}, {cb, side}, {cr, side}};
    Map<const int32_t> scales[gradient_scales] = {ycc[0]};
    for (int k = 1; k < gradient_scales; ++k) {
        const int64_t half = scales[k - 1].side / 2;
        int32_t* halved = arena.take<int32_t>(half * half);
        halve(scales[k - 1], halved);
        scales[k] = {halved, half};
    }

    residuals(scales[0], luma_unit, out + at.srm, out + at.residual, arena);
    residuals(scales[1], 4 * luma_unit, out + at.srm_half, out + at.residual_half, arena);
    for (int k = 0; k < pattern_scales; ++k)
        patterns(scales[k], luma_unit << 2 * k, out + at.lbp + k * pattern_bins, arena);
    dct_energies(ycc, out + at.dct, arena);
    float* next = out + at.wavelet;
    for (int plane = 0; plane < 3; ++plane) next = wavelet(ycc[plane], plane ? chroma_unit : luma_unit, next, arena);
    for (int k = 0; k < gradient_scales; ++k)
        gradients(scales[k], 255.0 * (luma_unit << 2 * k), out + at.gradient + k * gradient_numbers, arena);
    colour(rgb, ycc, out + at.colour, arena);
    constexpr int pairs[3][2] = {{0, 1}, {1, 2}, {0, 2}};
    for (int k = 0; k < 3; ++k)
        chroma_changes(rgb[pairs[k][0]], rgb[pairs[k][1]], out + at.chroma + 2 * k * chroma_bins, arena);
    spectrum(ycc[0], out + at.spectrum, arena);
}

}  // namespace
}  // namespace resynth
