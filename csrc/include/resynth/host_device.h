// Lets one header serve the C++ and the CUDA compiler, so that CPU tests cover the arithmetic of both.
#pragma once

// Internal linkage: object files built for different instruction sets must not share one inline copy, or the
// linker could hand the AVX-512 copy to the serial path.
#ifdef __CUDACC__
#define RESYNTH_HD static __host__ __device__ __forceinline__
#else
#define RESYNTH_HD static inline
#endif
