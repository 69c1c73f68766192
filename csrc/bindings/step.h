// step's arguments from arrays on any device: shapes and addresses only, no element is read.
#pragma once

#include <nanobind/stl/optional.h>
#include <nanobind/stl/vector.h>

#include <optional>
#include <string>
#include <vector>

#include "bindings/check.h"
#include "resynth/step.h"

namespace resynth::bindings {

// The arrays of one call with their names, so that an error can name the argument.
template <class Read, class Written>
struct StepArrays {
    std::vector<Read> samples, outputs;
    std::optional<Read> unconditional, noise;
    Written out;
    std::optional<Written> guided, scaled;

    template <class Visit>
    void each_read(Visit visit) const {
        for (size_t i = 0; i < samples.size(); ++i) visit(("samples[" + std::to_string(i) + "]").c_str(), samples[i]);
        for (size_t j = 0; j < outputs.size(); ++j) visit(("outputs[" + std::to_string(j) + "]").c_str(), outputs[j]);
        if (unconditional) visit("unconditional", *unconditional);
        if (noise) visit("noise", *noise);
    }

    template <class Visit>
    void each_written(Visit visit) const {
        visit("out", out);
        if (guided) visit("guided", *guided);
        if (scaled) visit("scaled", *scaled);
    }
};

template <class Array>
std::string shape_of(const Array& array) {
    std::string text = "(";
    for (size_t axis = 0; axis < array.ndim(); ++axis) text += (axis ? ", " : "") + std::to_string(array.shape(axis));
    return text + (array.ndim() == 1 ? ",)" : ")");
}

template <class Array, class Other>
bool same_shape(const Array& array, const Other& other) {
    if (array.ndim() != other.ndim()) return false;
    for (size_t axis = 0; axis < array.ndim(); ++axis)
        if (array.shape(axis) != other.shape(axis)) return false;
    return true;
}

// Arrays that share memory must be one and the same; two that are written may share none.
template <class Arrays>
void check_overlap(const Arrays& arrays) {
    arrays.each_written([&](const char* name, const auto& written) {
        const auto* first = reinterpret_cast<const char*>(written.data());
        const auto bytes = static_cast<ptrdiff_t>(written.nbytes());
        const auto apart = [&](const auto& other) {
            const ptrdiff_t distance = reinterpret_cast<const char*>(other.data()) - first;
            return distance >= bytes || distance <= -bytes;
        };
        arrays.each_read([&](const char* other, const auto& read) {
            if (!apart(read) && reinterpret_cast<const char*>(read.data()) != first)
                fail("%s overlaps %s; it must be the same array or share no memory with it", name, other);
        });
        arrays.each_written([&](const char* other, const auto& also) {
            if (std::strcmp(name, other) != 0 && !apart(also))
                fail("%s overlaps %s; both are written and must not share memory", name, other);
        });
    });
}

template <class Weights, class Read, class Written>
StepArgs step_args(const Weights& weights, const StepArrays<Read, Written>& arrays) {
    static_assert(sizeof(StepWeights) == (2 * step_history + 3) * sizeof(float));
    const auto& out = arrays.out;
    if (out.ndim() < 1) fail("out has no axis; its first must be the rows");
    const auto check_same = [&](const char* name, const auto& array) {
        if (!same_shape(array, out))
            fail("%s has shape %s; it must have %s, as out has", name, shape_of(array).c_str(), shape_of(out).c_str());
    };
    const auto check_count = [](const char* name, size_t count) {
        if (count < 1 || count > step_history)
            fail("%s has %zu arrays; it must have 1 to %d", name, count, step_history);
    };
    check_count("samples", arrays.samples.size());
    check_count("outputs", arrays.outputs.size());
    arrays.each_read(check_same);
    arrays.each_written(check_same);
    check_shape("weights", weights, extent(out, 0), 2 * step_history + 3);
    check_overlap(arrays);

    const auto address = [](const auto& array) { return array ? array->data() : nullptr; };
    StepArgs args{};
    args.weights = reinterpret_cast<const StepWeights*>(weights.data());
    args.rows = extent(out, 0);
    args.elements = args.rows ? static_cast<int64_t>(out.size()) / args.rows : 0;
    for (size_t i = 0; i < arrays.samples.size(); ++i) args.samples[i] = arrays.samples[i].data();
    for (size_t j = 0; j < arrays.outputs.size(); ++j) args.outputs[j] = arrays.outputs[j].data();
    args.unconditional = address(arrays.unconditional);
    args.noise = address(arrays.noise);
    args.out = out.data();
    args.guided = address(arrays.guided);
    args.scaled = address(arrays.scaled);
    return args;
}

// On the processor a weight without its array is an error.
inline void check_weights(const StepArgs& args) {
    for (int64_t r = 0; r < args.rows; ++r) {
        const StepWeights& weights = args.weights[r];
        const auto check = [r](const float* array, float weight, int column, const char* name) {
            if (!array && weight != 0.0f)
                fail("weights[%lld, %d] is %g, but there is no %s that it could weight", (long long)r, column, weight,
                     name);
        };
        for (int i = 0; i < step_history; ++i) {
            check(args.samples[i], weights.samples[i], i, ("samples[" + std::to_string(i) + "]").c_str());
            check(args.outputs[i], weights.outputs[i], step_history + i,
                  ("outputs[" + std::to_string(i) + "]").c_str());
        }
        check(args.noise, weights.noise, 2 * step_history, "noise");
    }
}

}  // namespace resynth::bindings
