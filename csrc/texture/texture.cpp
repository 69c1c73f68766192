#include "resynth/texture.h"

#include <memory>
#include <new>

#include "dispatch.h"
#include "texture/cpu.h"

namespace resynth {
namespace {

// No AVX-512 form: measured on a Zen 4, it was 4 % faster than AVX2 at 256 px and 10 % slower at 64 px.
constexpr Variants<TextureKernel> variants{.serial = describe_serial, .avx2 = RESYNTH_ON_X86(describe_avx2)};

constexpr std::align_val_t cache_line{64};

struct Release {
    void operator()(void* memory) const { ::operator delete(memory, cache_line); }
};

// Scratch memory that a thread keeps for its next call: fresh pages would cost more than the arithmetic.
class Scratch {
 public:
    void* of(int64_t bytes) {
        if (bytes > size_) {
            memory_.reset();
            size_ = 0;
            memory_.reset(::operator new(static_cast<size_t>(bytes), cache_line));
            size_ = bytes;
        }
        return memory_.get();
    }

    void trim() {
        constexpr int64_t most_kept = int64_t{64} << 20;
        if (size_ > most_kept) memory_.reset(), size_ = 0;
    }

 private:
    std::unique_ptr<void, Release> memory_;
    int64_t size_ = 0;
};

}  // namespace

int64_t texture_dimension(int64_t side) { return texture_layout(side).dimension; }

void texture(const TextureArgs& args) {
    static thread_local Scratch scratch;
    const TextureKernel describe = variants.choose();
    void* memory = scratch.of(scratch_bytes(args.side));
    const int64_t dimension = texture_dimension(args.side);
    for (int64_t n = 0; n < args.count; ++n)
        describe(args.pictures + n * args.side * args.side * 3, args.side, args.features + n * dimension, memory);
    scratch.trim();
}

}  // namespace resynth
