#include "preprocess/jpeg.h"
#include "resynth/launch.h"
#include "resynth/preprocess_cuda.h"

namespace resynth {
namespace {

constexpr int threads = 128;

__device__ int64_t item() { return int64_t{blockIdx.x} * blockDim.x + threadIdx.x; }

// --- resampling ---

struct Side {
    Sampling sampling;
    int64_t most;      // taps
    Taps* taps;        // (target)
    int32_t* weights;  // (target, most)
    double* exact;     // (target, most)
};

Side side_of(int64_t source, int64_t target, Filter filter, Workspace& workspace) {
    const Sampling sampling = sampling_of(source, target, filter);
    const int64_t most = most_taps(sampling);
    return {sampling, most, workspace.take<Taps>(target), workspace.take<int32_t>(target * most),
            workspace.take<double>(target * most)};
}

__global__ void weights_kernel(Side side) {
    const int64_t at = item();
    if (at >= side.sampling.target) return;
    double* exact = side.exact + at * side.most;
    const Taps taps = taps_of(side.sampling, at, exact);
    side.taps[at] = taps;
    for (int64_t k = 0; k < taps.count; ++k) side.weights[at * side.most + k] = fixed_weight(exact[k]);
}

// One resampled value along one side: bytes in fixed point, floats in double. Bytes that become floats are scaled to 0
// … 1.
template <class Between, class Number>
__device__ Between blend(const Number* pixels, int64_t step, const Side& side, int64_t at) {
    const Taps taps = side.taps[at];
    pixels += taps.first * step;
    if constexpr (sizeof(Between) == 1) {
        const int32_t* weights = side.weights + at * side.most;
        int32_t sum = fixed_half;
        for (int64_t k = 0; k < taps.count; ++k) sum += pixels[k * step] * weights[k];
        return to_byte(sum >> weight_bits);
    } else {
        const double* weights = side.exact + at * side.most;
        double sum = 0;
        for (int64_t k = 0; k < taps.count; ++k) {
            if constexpr (sizeof(Number) == 1)
                sum += unit_of(pixels[k * step]) * weights[k];
            else
                sum += pixels[k * step] * weights[k];
        }
        return static_cast<Between>(sum);
    }
}

// planes: (3, source height, width); one thread per value.
template <class Between>
__global__ void rows_kernel(ResizeArgs<uint8_t> args, Side side, Between* planes) {
    const int64_t i = item(), plane = args.source_height * args.width;
    if (i >= 3 * plane) return;
    const int64_t channel = i / plane, y = i % plane / args.width, x = i % args.width;
    planes[i] = blend<Between>(args.pixels + y * args.row_step + channel, 3, side, x);
}

template <class Between, class Write>
__global__ void columns_kernel(ResizeArgs<uint8_t> args, Side side, const Between* planes, Write write) {
    const int64_t i = item(), plane = args.height * args.width;
    if (i >= 3 * plane) return;
    const int64_t channel = i / plane, y = i % plane / args.width, x = i % args.width;
    write(channel, i % plane, plane,
          blend<Between>(planes + channel * args.source_height * args.width + x, args.width, side, y));
}

// Stores a value of `channel` at pixel `at` of a plane.
struct Interleaved {
    uint8_t* out;
    __device__ void operator()(int64_t channel, int64_t at, int64_t, uint8_t value) const {
        out[3 * at + channel] = value;
    }
};

struct Clipped {
    float* out;
    __device__ void operator()(int64_t channel, int64_t at, int64_t plane, float value) const {
        out[channel * plane + at] = in_unit(value);
    }
};

template <class Between, class Write>
cudaError_t resample(const ResizeArgs<uint8_t>& args, void* workspace, const Write& write, cudaStream_t stream) {
    Workspace pieces(workspace);
    const Side horizontal = side_of(args.source_width, args.width, args.filter, pieces);
    const Side vertical = side_of(args.source_height, args.height, args.filter, pieces);
    const int64_t between = 3 * args.source_height * args.width, total = 3 * args.height * args.width;
    Between* planes = pieces.take<Between>(between);
    cudaError_t error = launch(weights_kernel, blocks_for(args.width, threads), threads, stream, horizontal);
    if (error == cudaSuccess)
        error = launch(weights_kernel, blocks_for(args.height, threads), threads, stream, vertical);
    if (error == cudaSuccess)
        error = launch(rows_kernel<Between>, blocks_for(between, threads), threads, stream, args, horizontal, planes);
    if (error == cudaSuccess)
        error = launch(columns_kernel<Between, Write>, blocks_for(total, threads), threads, stream, args, vertical,
                       planes, write);
    return error;
}

__global__ void levels_kernel(LevelsArgs args) {
    const int64_t i = item(), plane = args.height * args.width;  // one thread per pixel
    if (i >= args.count * plane) return;
    const float* from = args.image + i / plane * 3 * plane + i % plane;
    for (int64_t channel = 0; channel < 3; ++channel)
        args.out[3 * i + channel] = static_cast<uint8_t>(lrintf(in_unit(from[channel * plane]) * 255.0f));
}

// --- JPEG ---

struct Plane {  // samples of whole blocks, of which (height, width) are the picture's
    uint8_t* data;
    int64_t height, width, padded_height, padded_width;
};

Plane plane_of(int64_t height, int64_t width, Workspace& workspace) {
    const int64_t tall = (height + 7) / 8 * 8, wide = (width + 7) / 8 * 8;
    return {workspace.take<uint8_t>(tall * wide), height, width, tall, wide};
}

struct Planes {
    const uint8_t* pixels;
    int64_t height, width;
    Plane luma, cb, cr;
};

Planes planes_of(const uint8_t* pixels, int64_t height, int64_t width, Workspace& workspace) {
    const int64_t tall = (height + 1) / 2, wide = (width + 1) / 2;
    return {pixels,
            height,
            width,
            plane_of(height, width, workspace),
            plane_of(tall, wide, workspace),
            plane_of(tall, wide, workspace)};
}

__device__ int64_t at_most(int64_t value, int64_t most) { return value < most ? value : most; }

__device__ const uint8_t* pixel(const Planes& planes, int64_t y, int64_t x) {
    return planes.pixels + 3 * (at_most(y, planes.height - 1) * planes.width + at_most(x, planes.width - 1));
}

__global__ void luma_kernel(Planes planes) {
    const int64_t i = item(), wide = planes.luma.padded_width;
    if (i >= planes.luma.padded_height * wide) return;
    const uint8_t* p = pixel(planes, i / wide, i % wide);
    planes.luma.data[i] = jpeg_luma(p[0], p[1], p[2]);
}

// Beyond the right edge the last pixel is repeated before halving; below the picture, the last *halved* row is.
__global__ void chroma_kernel(Planes planes) {
    const int64_t i = item(), wide = planes.cb.padded_width;
    if (i >= planes.cb.padded_height * wide) return;
    const int64_t y = at_most(i / wide, planes.cb.height - 1), x = i % wide;
    int32_t blue = 0, red = 0;
    for (int64_t k = 0; k < 4; ++k) {
        const uint8_t* p = pixel(planes, 2 * y + k / 2, 2 * x + k % 2);
        blue += jpeg_cb(p[0], p[1], p[2]);
        red += jpeg_cr(p[0], p[1], p[2]);
    }
    planes.cb.data[i] = mean_of_four(blue, x);
    planes.cr.data[i] = mean_of_four(red, x);
}

constexpr int dct_blocks = threads / 8;  // per thread block; a thread takes a row, then a column of one of them

__global__ void round_trip_kernel(Plane plane, bool chroma, int quality) {
    __shared__ int32_t coefficients[dct_blocks][64];
    const int line = static_cast<int>(threadIdx.x) % 8, mine = static_cast<int>(threadIdx.x) / 8;
    const int64_t across = plane.padded_width / 8, block = int64_t{blockIdx.x} * dct_blocks + mine;
    const bool some = block < across * (plane.padded_height / 8);
    const int64_t first = some ? block / across * 8 * plane.padded_width + block % across * 8 : 0;
    uint8_t* row = plane.data + first + line * plane.padded_width;
    int32_t *a = coefficients[mine] + 8 * line, *b = coefficients[mine] + line;
    if (some) forward_dct8(row, 1, 128, false, a, 1);
    __syncthreads();
    if (some) {
        forward_dct8(b, 8, 0, true, b, 8);
        for (int v = 0; v < 8; ++v)
            b[8 * v] = through_quantiser(b[8 * v], jpeg_quantiser(chroma, 8 * v + line, quality));
        inverse_dct8(b, 8, false, b, 8);
    }
    __syncthreads();
    if (some) {
        inverse_dct8(a, 1, true, a, 1);
        for (int x = 0; x < 8; ++x) row[x] = to_byte(a[x] + 128);
    }
}

__device__ int32_t upsampled(const Plane& half, int64_t y, int64_t x) {
    const int64_t near = y / 2, column = x / 2, last = half.width - 1;
    const uint8_t* here = half.data + near * half.padded_width;
    if (half.width <= 2) return here[column];
    int64_t beyond = y % 2 ? near + 1 : near - 1;
    beyond = beyond < 0 ? 0 : at_most(beyond, half.height - 1);
    const uint8_t* there = half.data + beyond * half.padded_width;
    int64_t beside = x % 2 ? column + 1 : column - 1;
    beside = beside < 0 ? 0 : at_most(beside, last);
    const int32_t sum = column_sum(here[column], there[column]), other = column_sum(here[beside], there[beside]);
    return x % 2 ? right_sample(sum, other) : left_sample(sum, other);
}

__global__ void colour_kernel(Planes planes, uint8_t* out) {
    const int64_t i = item();
    if (i >= planes.height * planes.width) return;
    const int64_t y = i / planes.width, x = i % planes.width;
    const int32_t level = planes.luma.data[y * planes.luma.padded_width + x];
    const int32_t blue = upsampled(planes.cb, y, x), red = upsampled(planes.cr, y, x);
    out[3 * i] = jpeg_red(level, red);
    out[3 * i + 1] = jpeg_green(level, blue, red);
    out[3 * i + 2] = jpeg_blue(level, blue);
}

}  // namespace

int64_t resize_workspace_bytes(const ResizeArgs<uint8_t>& args) {
    Workspace workspace(nullptr);
    side_of(args.source_width, args.width, args.filter, workspace);
    side_of(args.source_height, args.height, args.filter, workspace);
    workspace.take<float>(3 * args.source_height * args.width);
    return workspace.used();
}

cudaError_t resize_cuda(const ResizeArgs<uint8_t>& args, void* workspace, uint8_t* out, cudaStream_t stream) {
    return resample<uint8_t>(args, workspace, Interleaved{out}, stream);
}

cudaError_t resize_to_unit_cuda(const ResizeArgs<uint8_t>& args, void* workspace, float* out, cudaStream_t stream) {
    return resample<float>(args, workspace, Clipped{out}, stream);
}

cudaError_t levels_cuda(const LevelsArgs& args, cudaStream_t stream) {
    const int64_t pixels = args.count * args.height * args.width;
    return pixels ? launch(levels_kernel, blocks_for(pixels, threads), threads, stream, args) : cudaSuccess;
}

int64_t jpeg_workspace_bytes(int64_t height, int64_t width) {
    Workspace workspace(nullptr);
    planes_of(nullptr, height, width, workspace);
    return workspace.used();
}

cudaError_t jpeg_round_trip_cuda(const uint8_t* pixels, int64_t height, int64_t width, int quality, void* workspace,
                                 uint8_t* out, cudaStream_t stream) {
    Workspace pieces(workspace);
    const Planes planes = planes_of(pixels, height, width, pieces);
    const auto samples = [](const Plane& plane) { return plane.padded_height * plane.padded_width; };
    cudaError_t error = launch(luma_kernel, blocks_for(samples(planes.luma), threads), threads, stream, planes);
    if (error == cudaSuccess)
        error = launch(chroma_kernel, blocks_for(samples(planes.cb), threads), threads, stream, planes);
    const Plane* components[3] = {&planes.luma, &planes.cb, &planes.cr};
    for (int k = 0; k < 3 && error == cudaSuccess; ++k)
        error = launch(round_trip_kernel, blocks_for(samples(*components[k]) / 64, dct_blocks), threads, stream,
                       *components[k], k > 0, quality);
    if (error == cudaSuccess)
        error = launch(colour_kernel, blocks_for(height * width, threads), threads, stream, planes, out);
    return error;
}

}  // namespace resynth
