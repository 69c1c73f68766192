// Which instruction set the kernels use: chosen once, the best that the processor has, or the one that is forced.
#pragma once

#include <string>
#include <vector>

namespace resynth {

enum class Isa { serial, avx2, avx512 };

Isa isa();  // RESYNTH_ISA in the environment wins; throws std::runtime_error where that names no usable set
const char* name_of(Isa isa);
std::vector<std::string> supported_isas();  // on this processor, slowest first

// For tests and for reproducing a result of another machine. Throws std::invalid_argument naming what is allowed.
void force_isa(const std::string& name);

// One kernel in the forms that were worth writing; a level without its own form uses the next lower one's.
template <class Kernel>
struct Variants {
    Kernel serial;
    Kernel avx2 = nullptr;
    Kernel avx512 = nullptr;

    Kernel choose() const {
        const Isa level = isa();
        if (level >= Isa::avx512 && avx512) return avx512;
        if (level >= Isa::avx2 && avx2) return avx2;
        return serial;
    }
};

}  // namespace resynth

// Names a variant that only an x86-64 build holds.
#ifdef RESYNTH_X86
#define RESYNTH_ON_X86(kernel) kernel
#else
#define RESYNTH_ON_X86(kernel) nullptr
#endif
