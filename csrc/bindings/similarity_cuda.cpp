#include "resynth/similarity_cuda.h"

#include "bindings/bind.h"
#include "bindings/cuda_device.h"
#include "bindings/similarity.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace resynth::bindings {
namespace {

template <class Scalar, int dimensions>
using Array = nb::ndarray<Scalar, nb::ndim<dimensions>, nb::c_contig, nb::device::cuda>;

void run(Array<const float, 2> probes, Array<const float, 2> references, Array<const int64_t, 1> offsets,
         nb::str reduce, Array<float, 2> scores, Array<int64_t, 1> best, Array<float, 1> margin, uintptr_t stream) {
    const SimilarityArgs args = similarity_args(probes, references, offsets, reduce, scores, best, margin);
    const int device = probes.device_id();
    check_device("references", references, device, "probes");
    check_device("offsets", offsets, device, "probes");
    check_device("scores", scores, device, "probes");
    check_device("best", best, device, "probes");
    check_device("margin", margin, device, "probes");
    nb::gil_scoped_release released;
    const DeviceGuard guard(device);
    check(similarity_cuda(args, reinterpret_cast<cudaStream_t>(stream)));
}

}  // namespace

void bind_similarity_cuda(nb::module_& m) {
    m.def(
        "similarity", &run, "probes"_a.noconvert(), "references"_a.noconvert(), "offsets"_a.noconvert(), "reduce"_a,
        "scores"_a.noconvert(), "best"_a.noconvert(), "margin"_a.noconvert(), "stream"_a = 0,
        "Enqueues on `stream` (a cudaStream_t as an integer) the kernel that writes scores (P, C), best (P,) and "
        "margin (P,).\n\nNever synchronises: a group with a non-finite row or with invalid offsets scores NaN, and its "
        "probe gets best -1 and margin NaN.");
}

}  // namespace resynth::bindings
