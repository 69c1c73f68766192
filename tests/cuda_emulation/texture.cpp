// The unchanged CUDA source under the emulation header, behind C functions that ctypes can call.
#include "texture/texture.cu"

extern "C" int64_t emulated_workspace(int64_t count, int64_t side) {
    return resynth::texture_workspace_bytes(count, side);
}

extern "C" int64_t emulated_texture(const uint8_t* pictures, int64_t count, int64_t side, void* workspace,
                                    float* features) {
    return resynth::texture_cuda({pictures, count, side, features}, workspace, nullptr);
}
