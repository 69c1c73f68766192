#include "resynth/texture.h"

#include "dispatch.h"
#include "scratch.h"
#include "texture/cpu.h"

namespace resynth {
namespace {

// No AVX-512 form: measured on a Zen 4, it was 4 % faster than AVX2 at 256 px and 10 % slower at 64 px.
constexpr Variants<TextureKernel> variants{.serial = describe_serial, .avx2 = RESYNTH_ON_X86(describe_avx2)};

}  // namespace

int64_t texture_dimension(int64_t side) { return texture_layout(side).dimension; }

void texture(const TextureArgs& args) {
    static thread_local Scratch<char> scratch;
    const TextureKernel describe = variants.choose();
    void* memory = scratch.of(scratch_bytes(args.side));
    const int64_t dimension = texture_dimension(args.side);
    for (int64_t n = 0; n < args.count; ++n)
        describe(args.pictures + n * args.side * args.side * 3, args.side, args.features + n * dimension, memory);
    scratch.trim();
}

}  // namespace resynth
