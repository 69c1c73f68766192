// Checks of relations between arguments, which nanobind's types cannot express. An error names the argument, its value
// and the allowed values.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstdarg>
#include <cstdio>

namespace resynth::bindings {

[[noreturn]] [[gnu::format(printf, 1, 2)]] inline void fail(const char* format, ...) {
    char text[256];
    va_list values;
    va_start(values, format);
    std::vsnprintf(text, sizeof text, format, values);
    va_end(values);
    throw nanobind::value_error(text);
}

template <class Array>
long long extent(const Array& array, size_t axis) {
    return static_cast<long long>(array.shape(axis));
}

template <class Array>
void check_shape(const char* name, const Array& array, long long rows, long long columns = -1) {
    if (extent(array, 0) == rows && (columns < 0 || extent(array, array.ndim() - 1) == columns)) return;
    if (columns < 0) fail("%s has length %lld; it must have %lld", name, extent(array, 0), rows);
    fail("%s has shape (%lld, %lld); it must have (%lld, %lld)", name, extent(array, 0), extent(array, 1), rows,
         columns);
}

// Checks the alignment too, because the kernels place arrays of many types in it.
template <class Workspace>
void check_workspace(const Workspace& workspace, long long bytes) {
    if (extent(workspace, 0) < bytes)
        fail("workspace has length %lld; it must have at least %lld", extent(workspace, 0), bytes);
    if (reinterpret_cast<uintptr_t>(workspace.data()) % 256 != 0) fail("workspace must be aligned to 256 bytes");
}

// The groups divide `count` rows; `counted` is their name in errors.
inline void check_offsets(const int64_t* offsets, int64_t groups, int64_t count, const char* counted) {
    if (offsets[0] != 0) fail("offsets[0] is %lld; it must be 0", (long long)offsets[0]);
    for (int64_t g = 0; g < groups; ++g)
        if (offsets[g + 1] < offsets[g])
            fail("offsets[%lld] is %lld; it must be at least offsets[%lld] = %lld", (long long)g + 1,
                 (long long)offsets[g + 1], (long long)g, (long long)offsets[g]);
    if (offsets[groups] != count)
        fail("offsets[%lld] is %lld; it must be %lld, the number of %s", (long long)groups, (long long)offsets[groups],
             (long long)count, counted);
}

}  // namespace resynth::bindings
