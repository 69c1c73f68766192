// The unchanged CUDA source under the emulation header, behind a C function that ctypes can call.
#include "similarity/similarity.cu"

extern "C" int64_t emulated_similarity(const float* probes, const float* references, const int64_t* offsets,
                                       int64_t probe_count, int64_t reference_count, int64_t candidate_count,
                                       int64_t dimension, int64_t reduce, float* scores, int64_t* best, float* margin) {
    return resynth::similarity_cuda({probes, references, offsets, probe_count, reference_count, candidate_count,
                                     dimension, static_cast<resynth::Reduce>(reduce), scores, best, margin},
                                    nullptr);
}
