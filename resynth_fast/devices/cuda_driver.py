"""Memory and one stream of a CUDA device, by the driver that every machine with an NVIDIA GPU has: no toolkit, no torch."""

from __future__ import annotations

import contextlib
import ctypes
import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import DeviceError

LIBRARY = "libcuda.so.1"
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_…
_OUT_OF_MEMORY = 2
SMALLEST_BYTES = 512
"""Allocations are rounded up to powers of two, at least this many bytes, to keep the free list reusable."""


@functools.cache
def context() -> CudaContext:
    """The context that all engines of the process share, so that one engine can use results queued by another."""
    return CudaContext()


class CudaContext:
    """The primary context of the first CUDA device, shared with other libraries of the process. Any thread may call its methods.

    All work is queued on one stream. Freed memory is kept for the next allocation of its size: work that still uses it is on
    the stream already, ahead of any work of its next owner.
    """

    kind, dlpack = "cuda", (2, 0)
    """The names of ONNX Runtime and DLPack for this kind of device."""

    def __init__(self) -> None:
        """DeviceError if there is no driver or no device."""
        try:
            self._driver = ctypes.CDLL(LIBRARY)
        except OSError as error:
            raise DeviceError(f"no NVIDIA driver ({error}); choose another backend") from error
        self._call("cuInit", ctypes.c_uint(0))
        device, context, stream = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cuDeviceGet", ctypes.byref(device), ctypes.c_int(0))
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self._context = context
        self._sizes: dict[int, int] = {}
        self._kept: dict[int, list[int]] = {}
        self._uploads: list[npt.NDArray[Any]] = []
        self.enter()
        self._call("cuStreamCreate", ctypes.byref(stream), ctypes.c_uint(1))  # does not wait for the default stream
        self.stream = int(stream.value or 0)
        self.compute_capability = f"{self._attribute(device, _MAJOR)}.{self._attribute(device, _MINOR)}"

    def enter(self) -> None:
        """Make this the current context of the calling thread."""
        self._call("cuCtxSetCurrent", self._context)

    def allocate(self, size_bytes: int) -> int:
        """Allocate at least `size_bytes` at a multiple of 256.

        DeviceError if memory is short even after the free list was freed.
        """
        size_bytes = 1 << (max(size_bytes, SMALLEST_BYTES) - 1).bit_length()
        try:
            address = self._kept.setdefault(size_bytes, []).pop()
        except IndexError:
            address = self._allocate(size_bytes)
        self._sizes[address] = size_bytes
        return address

    def free(self, address: int) -> None:
        """Return memory of `allocate` to the free list."""
        self._kept[self._sizes.pop(address)].append(address)  # no lock: the garbage collector may call this at any time

    def upload(self, address: int, values: npt.NDArray[Any]) -> None:
        """Queue a copy of an array to the device; `values` may be changed as soon as this returns."""
        own = np.array(values, order="C")
        self._enqueue("cuMemcpyHtoDAsync_v2", ctypes.c_uint64(address), ctypes.c_void_p(own.ctypes.data), ctypes.c_size_t(own.nbytes))
        self._uploads.append(own)

    def download(self, address: int, shape: tuple[int, ...], dtype: npt.DTypeLike = np.float32) -> npt.NDArray[Any]:
        """Copy an array from the device, after all work on the stream."""
        values = np.empty(shape, dtype)
        self._enqueue("cuMemcpyDtoHAsync_v2", ctypes.c_void_p(values.ctypes.data), ctypes.c_uint64(address), ctypes.c_size_t(values.nbytes))
        self.synchronize()
        return values

    def copy(self, address: int, source: int, size_bytes: int) -> None:
        """Queue a copy within device memory."""
        self._enqueue("cuMemcpyDtoDAsync_v2", ctypes.c_uint64(address), ctypes.c_uint64(source), ctypes.c_size_t(size_bytes))

    def fill(self, address: int, word: int, count: int) -> None:
        """Queue a fill with `count` copies of the 32-bit `word`."""
        self._enqueue("cuMemsetD32Async", ctypes.c_uint64(address), ctypes.c_uint(word), ctypes.c_size_t(count))

    def synchronize(self) -> None:
        """Wait until all work on the stream is done."""
        uploaded, self._uploads = self._uploads, []  # their copies are on the stream: they can be freed once it is done
        self._enqueue("cuStreamSynchronize")
        del uploaded

    def _allocate(self, size_bytes: int) -> int:
        address = ctypes.c_uint64()
        self.enter()
        try:
            self._call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(size_bytes))
        except DeviceError:
            self._trim()
            self._call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(size_bytes))
        return address.value

    def _trim(self) -> None:
        """Free the memory of the free list."""
        self.synchronize()
        for kept in list(self._kept.values()):
            with contextlib.suppress(IndexError):
                while True:
                    self._call("cuMemFree_v2", ctypes.c_uint64(kept.pop()))

    def _enqueue(self, function: str, *arguments: Any) -> None:
        self.enter()
        self._call(function, *arguments, ctypes.c_void_p(self.stream))

    def _attribute(self, device: ctypes.c_int, which: int) -> int:
        value = ctypes.c_int()
        self._call("cuDeviceGetAttribute", ctypes.byref(value), ctypes.c_int(which), device)
        return value.value

    def _call(self, function: str, *arguments: Any) -> None:
        status = getattr(self._driver, function)(*arguments)
        if status == _OUT_OF_MEMORY:
            raise DeviceError("out of GPU memory; ask for fewer references or set a smaller batch")
        if status:
            raise DeviceError(f"the CUDA driver answers {function} with error {status}; is there a GPU that works (nvidia-smi)?")
