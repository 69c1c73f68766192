// Scratch memory that a thread reuses in its next call: new pages would cost more than the arithmetic.
#pragma once

#include <cstdint>
#include <memory>
#include <new>

namespace resynth {

// An array of numbers without constructors. Its contents are unspecified; it is aligned to a cache line.
template <class Number>
class Scratch {
 public:
    Number* of(int64_t count) {
        if (count > count_) {
            memory_.reset();
            count_ = 0;
            memory_.reset(::operator new(static_cast<size_t>(count) * sizeof(Number), cache_line));
            count_ = count;
        }
        return static_cast<Number*>(memory_.get());
    }

    void trim() {  // frees the memory of an unusually large picture
        constexpr int64_t most_bytes = int64_t{64} << 20;
        if (count_ * static_cast<int64_t>(sizeof(Number)) <= most_bytes) return;
        memory_.reset();
        count_ = 0;
    }

 private:
    static constexpr std::align_val_t cache_line{64};
    struct Release {
        void operator()(void* memory) const { ::operator delete(memory, cache_line); }
    };

    std::unique_ptr<void, Release> memory_;
    int64_t count_ = 0;
};

}  // namespace resynth
