#include <type_traits>

#include "preprocess/rows.h"
#include "scratch.h"

namespace resynth {
namespace {

// Weights of every target pixel of one side: int32 in fixed point for bytes, double for floats.
template <class Weight>
class Weights {
 public:
    void set(const Sampling& sampling) {
        most_ = most_taps(sampling);
        Weight* all = weights_.of(most_ * sampling.target);
        Taps* taps = taps_.of(sampling.target);
        double* exact = exact_.of(most_);
        for (int64_t at = 0; at < sampling.target; ++at) {
            taps[at] = taps_of(sampling, at, exact);
            for (int64_t k = 0; k < taps[at].count; ++k)
                if constexpr (std::is_same_v<Weight, int32_t>)
                    all[at * most_ + k] = fixed_weight(exact[k]);
                else
                    all[at * most_ + k] = exact[k];
        }
    }

    const Taps& taps(int64_t at) { return taps_.of(0)[at]; }
    const Weight* weights(int64_t at) { return weights_.of(0) + at * most_; }

 private:
    int64_t most_ = 0;
    Scratch<Weight> weights_;
    Scratch<Taps> taps_;
    Scratch<double> exact_;
};

// The loops for floats, which every instruction set shares. resize_to_unit needs them, and pictures that are floats.
void blend(const float* rows, int64_t step, const double* weights, int64_t taps, int64_t count, float* out) {
    constexpr int64_t chunk = 256;
    double sums[chunk];
    for (int64_t begin = 0; begin < count; begin += chunk) {
        const int64_t length = count - begin < chunk ? count - begin : chunk;
        for (int64_t i = 0; i < length; ++i) sums[i] = 0;
        for (int64_t k = 0; k < taps; ++k) {
            const float* row = rows + k * step + begin;
            const double weight = weights[k];
            for (int64_t i = 0; i < length; ++i) sums[i] += row[i] * weight;
        }
        for (int64_t i = 0; i < length; ++i) out[begin + i] = static_cast<float>(sums[i]);
    }
}

void transpose(const float* from, int64_t from_step, int64_t rows, int64_t columns, float* to, int64_t to_step) {
    for (int64_t column = 0; column < columns; ++column)
        for (int64_t row = 0; row < rows; ++row) to[column * to_step + row] = from[row * from_step + column];
}

template <class Number>
class Resizer {
 public:
    // Calls emit(y, rows of the three channels, (width) each) for every row of the result.
    template <class Emit>
    void run(const ResizeArgs<Number>& args, Emit emit) {
        if constexpr (std::is_same_v<Number, uint8_t>) kernels_ = preprocess_kernels();
        const Number* planes = along_rows(args);
        if (args.height == args.source_height) {  // every weight would be 0 or 1
            for (int64_t y = 0; y < args.height; ++y) emit(y, planes + y * args.width, args.source_height * args.width);
        } else {
            vertical_.set(sampling_of(args.source_height, args.height, args.filter));
            Number* line = line_.of(3 * args.width);
            for (int64_t y = 0; y < args.height; ++y) {
                for (int channel = 0; channel < 3; ++channel) {
                    const int64_t first = channel * args.source_height + vertical_.taps(y).first;
                    blend_rows(planes + first * args.width, args.width, vertical_.weights(y), vertical_.taps(y).count,
                               args.width, line + channel * args.width);
                }
                emit(y, line, args.width);
            }
        }
        planes_.trim();
        strip_.trim();
    }

 private:
    using Weight = std::conditional_t<std::is_same_v<Number, uint8_t>, int32_t, double>;

    // (3, source height, width): resampled along the rows, strip by strip, each transposed so that its rows are lanes.
    const Number* along_rows(const ResizeArgs<Number>& args) {
        const int64_t height = args.source_height, width = args.width, source = args.source_width;
        Number* planes = planes_.of(3 * height * width);
        const bool same = source == width;
        if (!same) horizontal_.set(sampling_of(source, width, args.filter));
        Number *turned = strip_.of(3 * source * strip_rows), *narrow = narrow_.of(3 * width * strip_rows);
        for (int64_t y = 0; y < height; y += strip_rows) {
            const int64_t rows = height - y < strip_rows ? height - y : strip_rows;
            turn(args.pixels + y * args.row_step, args.row_step, rows, 3 * source, turned, strip_rows);
            const Number* done = turned;
            if (!same) {
                for (int64_t x = 0; x < width; ++x)
                    for (int channel = 0; channel < 3; ++channel)
                        blend_rows(turned + (3 * horizontal_.taps(x).first + channel) * strip_rows, 3 * strip_rows,
                                   horizontal_.weights(x), horizontal_.taps(x).count, rows,
                                   narrow + (channel * width + x) * strip_rows);
                done = narrow;
            }
            for (int channel = 0; channel < 3; ++channel) {
                const Number* from = done + (same ? channel : channel * width) * strip_rows;
                turn(from, (same ? 3 : 1) * strip_rows, width, rows, planes + (channel * height + y) * width, width);
            }
        }
        return planes;
    }

    void blend_rows(const Number* rows, int64_t step, const Weight* weights, int64_t taps, int64_t count, Number* out) {
        if constexpr (std::is_same_v<Number, uint8_t>)
            kernels_.blend(rows, step, weights, taps, count, out);
        else
            blend(rows, step, weights, taps, count, out);
    }

    void turn(const Number* from, int64_t step, int64_t rows, int64_t columns, Number* to, int64_t to_step) {
        if constexpr (std::is_same_v<Number, uint8_t>)
            kernels_.transpose(from, step, rows, columns, to, to_step);
        else
            transpose(from, step, rows, columns, to, to_step);
    }

    PreprocessKernels kernels_{};
    Weights<Weight> horizontal_, vertical_;
    Scratch<Number> planes_, strip_, narrow_, line_;
};

// The level nearest to 255 times the value, of two the even one. lrintf gives the same, but a loop of it makes no
// vectors. The subtraction is exact, as long as the compiler fuses no product into it.
int32_t level_of(float value) {
    const float level = in_unit(value) * 255.0f;
    const auto below = static_cast<int32_t>(level);
    const float rest = level - static_cast<float>(below);
    return below + (rest > 0.5f ? 1 : rest == 0.5f ? below & 1 : 0);
}

template <class Number>
Resizer<Number>& resizer() {
    static thread_local Resizer<Number> kept;
    return kept;
}

}  // namespace

template <class Number>
void resize(const ResizeArgs<Number>& args, Number* out) {
    resizer<Number>().run(args, [&](int64_t y, const Number* rows, int64_t step) {
        Number* line = out + 3 * y * args.width;
        const Number *r = rows, *g = rows + step, *b = rows + 2 * step;
        for (int64_t x = 0; x < args.width; ++x) line[3 * x] = r[x], line[3 * x + 1] = g[x], line[3 * x + 2] = b[x];
    });
}

void resize_to_unit(const ResizeArgs<uint8_t>& args, float* out) {
    static thread_local Scratch<float> scratch;
    const int64_t step = 3 * args.source_width;
    float* units = scratch.of(args.source_height * step);
    for (int64_t y = 0; y < args.source_height; ++y)
        for (int64_t i = 0; i < step; ++i) units[y * step + i] = unit_of(args.pixels[y * args.row_step + i]);
    const ResizeArgs<float> of_units{units,       step,       args.source_height, args.source_width,
                                     args.height, args.width, args.filter};
    resizer<float>().run(of_units, [&](int64_t y, const float* rows, int64_t between) {
        for (int channel = 0; channel < 3; ++channel)
            for (int64_t x = 0; x < args.width; ++x)
                out[(channel * args.height + y) * args.width + x] = in_unit(rows[channel * between + x]);
    });
    scratch.trim();
}

void levels(const LevelsArgs& args) {
    constexpr int64_t chunk = 256;
    int32_t colours[chunk];  // so that the arithmetic is a loop of its own, of vectors
    const int64_t plane = args.height * args.width;
    for (int64_t n = 0; n < args.count; ++n)
        for (int64_t begin = 0; begin < plane; begin += chunk) {
            const int64_t length = plane - begin < chunk ? plane - begin : chunk;
            const float* red = args.image + 3 * n * plane + begin;
            const float *green = red + plane, *blue = green + plane;
            for (int64_t i = 0; i < length; ++i)
                colours[i] = level_of(red[i]) | level_of(green[i]) << 8 | level_of(blue[i]) << 16;
            uint8_t* to = args.out + 3 * (n * plane + begin);
            for (int64_t i = 0; i < length; ++i)
                for (int channel = 0; channel < 3; ++channel)
                    to[3 * i + channel] = static_cast<uint8_t>(colours[i] >> 8 * channel);
        }
}

template void resize(const ResizeArgs<uint8_t>&, uint8_t*);
template void resize(const ResizeArgs<float>&, float*);

}  // namespace resynth
