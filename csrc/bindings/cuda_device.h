// Helpers for the launch of a CUDA kernel.
#pragma once

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

#include "bindings/check.h"

namespace resynth::bindings {

inline void check(cudaError_t error) {
    if (error != cudaSuccess) throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(error));
}

// Makes the arrays' device current for a launch, and restores the caller's device afterwards.
class DeviceGuard {
 public:
    explicit DeviceGuard(int device) {
        check(cudaGetDevice(&previous_));
        check(cudaSetDevice(device));
    }
    ~DeviceGuard() { cudaSetDevice(previous_); }
    DeviceGuard(const DeviceGuard&) = delete;
    DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
    int previous_ = 0;
};

// `as` is the name of an argument on `device`.
template <class Array>
void check_device(const char* name, const Array& array, int device, const char* as) {
    if (array.device_id() != device)
        fail("%s is on cuda:%d; it must be on cuda:%d, as %s is", name, array.device_id(), device, as);
}

}  // namespace resynth::bindings
