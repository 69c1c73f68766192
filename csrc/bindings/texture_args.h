// The arguments of texture, checked: shapes only, so it serves arrays on any device.
#pragma once

#include "bindings/check.h"
#include "resynth/texture.h"
#include "texture/layout.h"

namespace resynth::bindings {

constexpr long long least_side = 32, most_side = 4096;

template <class Pictures, class Features>
TextureArgs texture_args(const Pictures& pictures, const Features& features) {
    const long long count = extent(pictures, 0), side = extent(pictures, 1);
    if (extent(pictures, 2) != side || extent(pictures, 3) != 3)
        fail("pictures has shape (%lld, %lld, %lld, %lld); it must be (n, S, S, 3)", count, side, extent(pictures, 2),
             extent(pictures, 3));
    if (side < least_side || side > most_side || side % 8 != 0)
        fail("pictures has side %lld; it must be a multiple of 8, %lld to %lld", side, least_side, most_side);
    check_shape("features", features, count, texture_layout(side).dimension);
    return {.pictures = pictures.data(), .count = count, .side = side, .features = features.data()};
}

}  // namespace resynth::bindings
