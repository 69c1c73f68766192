// The unchanged CUDA source under the emulation header, behind a C function that ctypes can call.
#include "similarity/score.cu"

extern "C" int64_t emulated_workspace(int64_t probes, int64_t points, int64_t candidates, int64_t dimension) {
    return resynth::score_cuda_workspace(probes, points, candidates, dimension);
}

extern "C" int64_t emulated_score(const resynth::ScoreArgs* args, void* workspace) {
    return resynth::score_cuda(*args, workspace, nullptr);
}
