// The unchanged CUDA source under the emulation header, behind C functions that ctypes can call.
#include "preprocess/preprocess.cu"

#include <vector>

template <class Run>
int64_t on_square(const uint8_t* pixels, int64_t row_step, int64_t source, int64_t side, int64_t filter, Run run) {
    const resynth::ResizeArgs<uint8_t> args{
        pixels, row_step, source, source, side, side, static_cast<resynth::Filter>(filter)};
    std::vector<char> workspace(static_cast<size_t>(resynth::resize_workspace_bytes(args)), '\xff');
    return run(args, workspace.data());
}

extern "C" int64_t emulated_resize(const uint8_t* pixels, int64_t row_step, int64_t source, int64_t side,
                                   int64_t filter, uint8_t* out) {
    return on_square(pixels, row_step, source, side, filter,
                     [&](auto& args, void* workspace) { return resynth::resize_cuda(args, workspace, out, nullptr); });
}

extern "C" int64_t emulated_fit(const uint8_t* pixels, int64_t row_step, int64_t source, int64_t side, int64_t filter,
                                float* out) {
    return on_square(pixels, row_step, source, side, filter, [&](auto& args, void* workspace) {
        return resynth::resize_to_unit_cuda(args, workspace, out, nullptr);
    });
}

extern "C" int64_t emulated_levels(const float* image, int64_t count, int64_t height, int64_t width, uint8_t* out) {
    return resynth::levels_cuda({image, count, height, width, out}, nullptr);
}

extern "C" int64_t emulated_jpeg(const uint8_t* pixels, int64_t height, int64_t width, int64_t quality, uint8_t* out) {
    std::vector<char> workspace(static_cast<size_t>(resynth::jpeg_workspace_bytes(height, width)), '\xff');
    return resynth::jpeg_round_trip_cuda(pixels, height, width, quality, workspace.data(), out, nullptr);
}
