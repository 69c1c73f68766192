// One binding function per kernel, each in a file of its own. native.cpp and cuda.cpp build the modules from them.
#pragma once

#include <nanobind/nanobind.h>

namespace resynth::bindings {

void bind_at_address(nanobind::module_& m);
void bind_finite(nanobind::module_& m);
void bind_noise(nanobind::module_& m);
void bind_preprocess(nanobind::module_& m);
void bind_score(nanobind::module_& m);
void bind_similarity(nanobind::module_& m);
void bind_step(nanobind::module_& m);
void bind_texture(nanobind::module_& m);
void bind_topk(nanobind::module_& m);

void bind_finite_cuda(nanobind::module_& m);
void bind_noise_cuda(nanobind::module_& m);
void bind_preprocess_cuda(nanobind::module_& m);
void bind_score_cuda(nanobind::module_& m);
void bind_similarity_cuda(nanobind::module_& m);
void bind_step_cuda(nanobind::module_& m);
void bind_texture_cuda(nanobind::module_& m);
void bind_topk_cuda(nanobind::module_& m);

}  // namespace resynth::bindings
