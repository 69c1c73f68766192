#include "preprocess/jpeg.h"

#include "preprocess/rows.h"
#include "scratch.h"

namespace resynth {
namespace {

struct Plane {  // samples of whole blocks, of which (height, width) are the picture's
    uint8_t* data;
    int64_t height, width, padded_height, padded_width;
    uint8_t* row(int64_t y) const { return data + y * padded_width; }
    int64_t size() const { return padded_height * padded_width; }
};

constexpr int64_t whole_blocks(int64_t samples) { return (samples + 7) / 8 * 8; }

constexpr Plane plane_of(int64_t height, int64_t width) {
    return {nullptr, height, width, whole_blocks(height), whole_blocks(width)};
}

// Repeats the last row below the picture.
void extend_down(const Plane& plane) {
    for (int64_t y = plane.height; y < plane.padded_height; ++y)
        for (int64_t x = 0; x < plane.padded_width; ++x) plane.row(y)[x] = plane.row(plane.height - 1)[x];
}

// Repeats the last pixel to the right, at full size before halving.
void extend(const Plane& plane) {
    for (int64_t y = 0; y < plane.height; ++y)
        for (int64_t x = plane.width; x < plane.padded_width; ++x) plane.row(y)[x] = plane.row(y)[plane.width - 1];
    extend_down(plane);
}

void halve(const uint8_t* full, int64_t height, int64_t width, const Plane& half) {
    for (int64_t y = 0; y < half.height; ++y) {
        const uint8_t *a = full + 2 * y * width, *b = 2 * y + 1 < height ? a + width : a;
        uint8_t* out = half.row(y);
        for (int64_t x = 0; x < width / 2; ++x)
            out[x] = mean_of_four(a[2 * x] + a[2 * x + 1] + b[2 * x] + b[2 * x + 1], x);
        for (int64_t x = width / 2; x < half.padded_width; ++x)
            out[x] = mean_of_four(2 * (a[width - 1] + b[width - 1]), x);
    }
    extend_down(half);
}

// One row of chroma at full size. libjpeg repeats samples instead of blending them where there are no more than two.
void upsample_row(const Plane& half, int64_t y, int64_t width, int32_t* sums, uint8_t* out) {
    const int64_t near = y / 2, last = half.width - 1;
    const uint8_t* here = half.row(near);
    if (half.width <= 2) {
        for (int64_t x = 0; x < width; ++x) out[x] = here[x / 2];
        return;
    }
    const int64_t beyond = y % 2 ? near + 1 : near - 1;
    const uint8_t* there = half.row(beyond < 0 ? 0 : beyond >= half.height ? half.height - 1 : beyond);
    for (int64_t x = 0; x <= last; ++x) sums[x] = column_sum(here[x], there[x]);
    for (int64_t x = 1; x < last; ++x) {
        out[2 * x] = left_sample(sums[x], sums[x - 1]);
        out[2 * x + 1] = right_sample(sums[x], sums[x + 1]);
    }
    out[0] = left_sample(sums[0], sums[0]);
    out[1] = right_sample(sums[0], sums[1]);
    out[2 * last] = left_sample(sums[last], sums[last - 1]);
    if (2 * last + 1 < width) out[2 * last + 1] = right_sample(sums[last], sums[last]);
}

void round_trip(const Plane& plane, bool chroma, int quality, const PreprocessKernels& kernels, int32_t* lanes) {
    int32_t quantisers[64];
    for (int k = 0; k < 64; ++k) quantisers[k] = jpeg_quantiser(chroma, k, quality);
    for (int64_t y = 0; y < plane.padded_height; y += 8)
        kernels.round_trip(plane.row(y), plane.padded_width, plane.padded_width / 8, quantisers, lanes);
}

}  // namespace

void jpeg_round_trip(const uint8_t* pixels, int64_t height, int64_t width, int quality, uint8_t* out) {
    static thread_local Scratch<uint8_t> bytes;
    static thread_local Scratch<int32_t> numbers;
    const PreprocessKernels kernels = preprocess_kernels();
    Plane luma = plane_of(height, width), cb = plane_of((height + 1) / 2, (width + 1) / 2), cr = cb;
    luma.data = bytes.of(luma.size() + 2 * cb.size() + 2 * height * width + 2 * width);
    cb.data = luma.data + luma.size();
    cr.data = cb.data + cb.size();
    uint8_t *full_cb = cr.data + cr.size(), *full_cr = full_cb + height * width;
    uint8_t *line_cb = full_cr + height * width, *line_cr = line_cb + width;
    int32_t *lanes = numbers.of(16 * luma.padded_width + cb.width), *sums = lanes + 16 * luma.padded_width;

    for (int64_t y = 0; y < height; ++y) {
        const uint8_t* line = pixels + 3 * y * width;
        uint8_t *to_luma = luma.row(y), *to_cb = full_cb + y * width, *to_cr = full_cr + y * width;
        for (int64_t x = 0; x < width; ++x) {
            const int32_t r = line[3 * x], g = line[3 * x + 1], b = line[3 * x + 2];
            to_luma[x] = jpeg_luma(r, g, b), to_cb[x] = jpeg_cb(r, g, b), to_cr[x] = jpeg_cr(r, g, b);
        }
    }
    extend(luma);
    halve(full_cb, height, width, cb);
    halve(full_cr, height, width, cr);
    round_trip(luma, false, quality, kernels, lanes);
    round_trip(cb, true, quality, kernels, lanes);
    round_trip(cr, true, quality, kernels, lanes);
    for (int64_t y = 0; y < height; ++y) {
        upsample_row(cb, y, width, sums, line_cb);
        upsample_row(cr, y, width, sums, line_cr);
        const uint8_t* from_luma = luma.row(y);
        uint8_t* line = out + 3 * y * width;
        for (int64_t x = 0; x < width; ++x) {
            const int32_t level = from_luma[x], blue = line_cb[x], red = line_cr[x];
            line[3 * x] = jpeg_red(level, red);
            line[3 * x + 1] = jpeg_green(level, blue, red);
            line[3 * x + 2] = jpeg_blue(level, blue);
        }
    }
    bytes.trim();
}

}  // namespace resynth
