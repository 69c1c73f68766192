// The unchanged CUDA source under the emulation header, behind a C function that ctypes can call.
#include "topk/topk.cu"

extern "C" int64_t emulated_topk_workspace(int64_t query_count, int64_t row_count, int64_t k) {
    return resynth::topk_cuda_workspace(query_count, row_count, k);
}

extern "C" int emulated_topk(const float* queries, const void* gallery, int storage, int metric, int64_t query_count,
                             int64_t row_count, int64_t dimension, int64_t k, float* scores, int64_t* indices,
                             void* workspace) {
    return resynth::topk_cuda(
        {queries, gallery, static_cast<resynth::Storage>(storage), static_cast<resynth::Metric>(metric), query_count,
         row_count, dimension, k, scores, indices},
        workspace, nullptr);
}
