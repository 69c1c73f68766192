// The arguments of resize, fit, levels and jpeg_round_trip, checked: shapes and steps only, on any device.
#pragma once

#include <cstring>

#include "bindings/check.h"
#include "resynth/preprocess.h"

namespace resynth::bindings {

constexpr long long most_pixels_a_side = 1 << 20;  // fixed-point sums and offsets fit far beyond it

inline Filter filter_named(const char* name) {
    constexpr const char* names[] = {"box", "bilinear", "bicubic", "lanczos"};
    for (int k = 0; k < 4; ++k)
        if (std::strcmp(name, names[k]) == 0) return static_cast<Filter>(k);
    fail("filter is '%s'; it must be 'box', 'bilinear', 'bicubic' or 'lanczos'", name);
}

template <class Array>
void check_channels(const char* name, const Array& array, size_t axis) {
    if (extent(array, axis) == 3) return;
    fail("%s has shape (%lld, %lld, %lld); it must have 3 channels %s", name, extent(array, 0), extent(array, 1),
         extent(array, 2), axis == 0 ? "first" : "last");
}

template <class Scalar, class Pixels>
ResizeArgs<Scalar> resize_args(const Pixels& pixels, const nanobind::str& filter, size_t height, size_t width) {
    check_channels("pixels", pixels, 2);
    if (pixels.stride(2) != 1 || pixels.stride(1) != 3)
        fail("pixels has strides (%lld, %lld, %lld); within a row they must be (3, 1)", (long long)pixels.stride(0),
             (long long)pixels.stride(1), (long long)pixels.stride(2));
    for (long long side : {extent(pixels, 0), extent(pixels, 1)})
        if (side < 1 || side > most_pixels_a_side)
            fail("pixels has shape (%lld, %lld, 3); sides must be 1 to %lld", extent(pixels, 0), extent(pixels, 1),
                 most_pixels_a_side);
    if (height < 1 || width < 1) fail("out has size (%zu, %zu); sides must be at least 1", height, width);
    return {.pixels = pixels.data(),
            .row_step = pixels.stride(0),
            .source_height = extent(pixels, 0),
            .source_width = extent(pixels, 1),
            .height = static_cast<int64_t>(height),
            .width = static_cast<int64_t>(width),
            .filter = filter_named(filter.c_str())};
}

template <class Image, class Out>
LevelsArgs levels_args(const Image& image, const Out& out) {
    const long long count = extent(image, 0), height = extent(image, 2), width = extent(image, 3);
    if (extent(image, 1) != 3)
        fail("image has shape (%lld, %lld, %lld, %lld); it must have 3 channels first", count, extent(image, 1), height,
             width);
    if (extent(out, 0) != count || extent(out, 1) != height || extent(out, 2) != width || extent(out, 3) != 3)
        fail("out has shape (%lld, %lld, %lld, %lld); it must have (%lld, %lld, %lld, 3), as image has", extent(out, 0),
             extent(out, 1), extent(out, 2), extent(out, 3), count, height, width);
    return {.image = image.data(), .count = count, .height = height, .width = width, .out = out.data()};
}

template <class Pixels, class Out>
void check_jpeg(const Pixels& pixels, int quality, const Out& out) {
    check_channels("pixels", pixels, 2);
    if (extent(pixels, 0) < 1 || extent(pixels, 1) < 1)
        fail("pixels has shape (%lld, %lld, 3); sides must be at least 1", extent(pixels, 0), extent(pixels, 1));
    if (quality < 1 || quality > 100) fail("quality is %d; it must be 1 to 100", quality);
    if (extent(out, 0) != extent(pixels, 0) || extent(out, 1) != extent(pixels, 1) || extent(out, 2) != 3)
        fail("out has shape (%lld, %lld, %lld); it must have (%lld, %lld, 3), as pixels has", extent(out, 0),
             extent(out, 1), extent(out, 2), extent(pixels, 0), extent(pixels, 1));
}

}  // namespace resynth::bindings
