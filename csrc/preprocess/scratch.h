// Memory that a thread keeps for its next call: fresh pages would cost as much as the arithmetic.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace resynth {

template <class Number>
class Buffer {
 public:
    Number* of(int64_t count) {  // contents are unspecified
        if (static_cast<size_t>(count) > kept_.size()) kept_ = std::vector<Number>(static_cast<size_t>(count));
        return kept_.data();
    }

    void trim() {
        constexpr size_t most_bytes = size_t{64} << 20;
        if (kept_.size() * sizeof(Number) > most_bytes) kept_ = {};
    }

 private:
    std::vector<Number> kept_;
};

}  // namespace resynth
