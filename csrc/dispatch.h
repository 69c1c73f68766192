// The instruction set of the kernels, chosen once: the best one of the processor, or a forced one.
#pragma once

#include <string>
#include <vector>

namespace resynth {

enum class Isa { serial, avx2, avx512 };

Isa isa();  // RESYNTH_ISA in the environment forces one; std::runtime_error if that set is not usable
const char* name_of(Isa isa);
std::vector<std::string> supported_isas();  // on this processor, slowest first

// For tests, and to reproduce a result of another machine. Throws std::invalid_argument, which names the allowed sets.
void force_isa(const std::string& name);

// The variants of one kernel. An instruction set without its own variant uses that of the next lower one.
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
