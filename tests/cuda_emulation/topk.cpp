// The unchanged CUDA source under the emulation header, behind a C function that ctypes can call.
#include "topk/topk.cu"

extern "C" int64_t emulated_topk_workspace(int64_t query_count, int64_t row_count, int64_t group_count, int64_t k) {
    return resynth::topk_cuda_workspace(query_count, row_count, group_count, k);
}

extern "C" int64_t emulated_topk(const float* queries, const void* const* blocks, const int64_t* columns,
                                 int64_t block_count, int64_t storage, const float* offsets, const float* weights,
                                 const int32_t* groups, int64_t query_count, int64_t row_count, int64_t group_count,
                                 int64_t k, float* scores, int64_t* indices, void* workspace) {
    resynth::TopKArgs args{};
    args.queries = queries;
    args.offsets = offsets;
    args.block_count = block_count;
    args.storage = static_cast<resynth::Storage>(storage);
    args.weights = weights;
    args.groups = groups;
    args.query_count = query_count;
    args.row_count = row_count;
    args.group_count = group_count;
    args.k = k;
    args.scores = scores;
    args.indices = indices;
    for (int64_t b = 0; b < block_count; ++b) {
        args.blocks[b] = {blocks[b], columns[b]};
        args.dimension += columns[b];
    }
    return resynth::topk_cuda(args, workspace, nullptr);
}
