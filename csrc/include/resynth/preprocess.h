// From pictures to what a network or a descriptor takes: antialiased resampling, bytes of floats, a JPEG round trip.
#pragma once

#include <cstdint>

namespace resynth {

enum class Filter : int32_t { box, bilinear, bicubic, lanczos };

// A rectangle of an interleaved RGB picture, resampled to (height, width). Raw pointers, caller-owned. `Number` is
// uint8_t, with the 8-bit intermediate and the fixed-point arithmetic of Pillow, or float, summed in double.
template <class Number>
struct ResizeArgs {
    const Number* pixels;  // top left of the rectangle, channels last
    int64_t row_step;      // numbers from one row to the next
    int64_t source_height, source_width;
    int64_t height, width;
    Filter filter;
};

// They run on the calling thread with the kernel of isa() (dispatch.h); that thread keeps their scratch.
template <class Number>
void resize(const ResizeArgs<Number>& args, Number* out);  // (height, width, 3)
// Bytes become 0 … 1, are resampled as floats and clipped to that range.
void resize_to_unit(const ResizeArgs<uint8_t>& args, float* out);  // (3, h, w)

extern template void resize(const ResizeArgs<uint8_t>&, uint8_t*);
extern template void resize(const ResizeArgs<float>&, float*);

// A batch of pictures of 0 … 1, a plane a channel, to interleaved bytes: clipped, rounded to the nearest, halves to
// even.
struct LevelsArgs {
    const float* image;  // (count, 3, height, width)
    int64_t count, height, width;
    uint8_t* out;  // (count, height, width, 3)
};

void levels(const LevelsArgs& args);

// What a JPEG file of this quality, 1 … 100, with 4:2:0 chroma decodes to; pixels and out: (height, width, 3) sRGB.
void jpeg_round_trip(const uint8_t* pixels, int64_t height, int64_t width, int quality, uint8_t* out);

}  // namespace resynth
