// The kernels that take pictures, each bound in a file of its own; native.cpp and cuda.cpp make the modules of them.
#pragma once

#include <nanobind/nanobind.h>

namespace resynth::bindings {

void bind_preprocess(nanobind::module_& m);
void bind_texture(nanobind::module_& m);

void bind_preprocess_cuda(nanobind::module_& m);
void bind_texture_cuda(nanobind::module_& m);

}  // namespace resynth::bindings
