#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/vector.h>

#include <utility>
#include <vector>

#include "bindings/bind.h"
#include "bindings/check.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace resynth::bindings {
namespace {

nb::ndarray<nb::array_api> at_address(uintptr_t address, const std::vector<size_t>& shape,
                                      const std::vector<int64_t>& strides, char kind, int bits,
                                      std::pair<int, int> device, nb::object owner) {
    if (shape.size() != strides.size())
        fail("strides has length %zu; it must have %zu, one for each axis of shape", strides.size(), shape.size());
    const auto code = kind == 'f'   ? nb::dlpack::dtype_code::Float
                      : kind == 'u' ? nb::dlpack::dtype_code::UInt
                                    : nb::dlpack::dtype_code::Int;
    return nb::ndarray<nb::array_api>(reinterpret_cast<void*>(address), shape.size(), shape.data(), owner,
                                      strides.data(), {static_cast<uint8_t>(code), static_cast<uint8_t>(bits), 1},
                                      device.first, device.second);
}

}  // namespace

void bind_at_address(nb::module_& m) {
    m.def("at_address", &at_address, "address"_a, "shape"_a, "strides"_a, "kind"_a, "bits"_a, "device"_a, "owner"_a,
          "An array in memory that `owner` owns: its DLPack is what kernels take. strides: in elements; kind: 'f', 'i' "
          "or "
          "'u'; device: DLPack's type and number of it.");
}

}  // namespace resynth::bindings
