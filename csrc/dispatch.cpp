#include "dispatch.h"

#include <atomic>
#include <cstdlib>
#include <stdexcept>

namespace resynth {
namespace {

std::vector<Isa> supported() {
    std::vector<Isa> found{Isa::serial};
#ifdef RESYNTH_X86
    __builtin_cpu_init();
    // Exactly the features that CMakeLists.txt lets the compiler use in each object library.
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c"))
        found.push_back(Isa::avx2);
    if (found.back() == Isa::avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
        found.push_back(Isa::avx512);
#endif
    return found;
}

Isa named(const std::string& name) {
    std::string allowed;
    for (Isa candidate : supported()) {
        if (name == name_of(candidate)) return candidate;
        allowed += allowed.empty() ? name_of(candidate) : std::string(", ") + name_of(candidate);
    }
    throw std::invalid_argument("isa is '" + name + "'; this processor allows " + allowed);
}

Isa initial() {
    const char* forced = std::getenv("RESYNTH_ISA");
    return forced && *forced ? named(forced) : supported().back();
}

std::atomic<Isa>& current() {
    static std::atomic<Isa> value{initial()};
    return value;
}

}  // namespace

Isa isa() { return current().load(std::memory_order_relaxed); }

const char* name_of(Isa isa) {
    switch (isa) {
        case Isa::avx512:
            return "avx512";
        case Isa::avx2:
            return "avx2";
        default:
            return "serial";
    }
}

std::vector<std::string> supported_isas() {
    std::vector<std::string> names;
    for (Isa isa : supported()) names.emplace_back(name_of(isa));
    return names;
}

void force_isa(const std::string& name) { current().store(named(name), std::memory_order_relaxed); }

}  // namespace resynth
