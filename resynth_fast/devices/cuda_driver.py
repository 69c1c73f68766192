"""Memory and one stream of a CUDA device, through the driver that every machine with an NVIDIA GPU has: no toolkit, no torch."""

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
"""Memory is given out in powers of two from here on, so that little of it is of a size that nobody asks for again."""


@functools.cache
def context() -> CudaContext:
    """The one that all engines of the process share, so that what one of them leaves on the stream another may take."""
    return CudaContext()


class CudaContext:
    """The first CUDA device, by its primary context, which other libraries of the process share. Methods may be called by any thread.

    All work is put on one stream. Memory that is freed is kept for who next asks for as much: whatever is still to be done with
    it is on the stream already, before what will be done with it then.
    """

    kind, dlpack = "cuda", (2, 0)
    """What ONNX Runtime and DLPack call it."""

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
        """Make this device the calling thread's."""
        self._call("cuCtxSetCurrent", self._context)

    def allocate(self, size_bytes: int) -> int:
        """Address of at least so much device memory, a multiple of 256; DeviceError if there is not enough, even without what is kept."""
        size_bytes = 1 << (max(size_bytes, SMALLEST_BYTES) - 1).bit_length()
        try:
            address = self._kept.setdefault(size_bytes, []).pop()
        except IndexError:
            address = self._allocate(size_bytes)
        self._sizes[address] = size_bytes
        return address

    def free(self, address: int) -> None:
        """Give `allocate`'s memory back."""
        self._kept[self._sizes.pop(address)].append(address)  # without a lock: the collector may call it at any time

    def upload(self, address: int, values: npt.NDArray[Any]) -> None:
        """Copy an array to the device, in its turn on the stream; `values` may be changed as soon as this returns."""
        own = np.array(values, order="C")
        self._enqueue("cuMemcpyHtoDAsync_v2", ctypes.c_uint64(address), ctypes.c_void_p(own.ctypes.data), ctypes.c_size_t(own.nbytes))
        self._uploads.append(own)

    def download(self, address: int, shape: tuple[int, ...], dtype: npt.DTypeLike = np.float32) -> npt.NDArray[Any]:
        """An array from the device, after all that is on the stream."""
        values = np.empty(shape, dtype)
        self._enqueue("cuMemcpyDtoHAsync_v2", ctypes.c_void_p(values.ctypes.data), ctypes.c_uint64(address), ctypes.c_size_t(values.nbytes))
        self.synchronize()
        return values

    def copy(self, address: int, source: int, size_bytes: int) -> None:
        """From one device on the device to another."""
        self._enqueue("cuMemcpyDtoDAsync_v2", ctypes.c_uint64(address), ctypes.c_uint64(source), ctypes.c_size_t(size_bytes))

    def fill(self, address: int, word: int, count: int) -> None:
        """Write `count` words of 32 bits, all `word`."""
        self._enqueue("cuMemsetD32Async", ctypes.c_uint64(address), ctypes.c_uint(word), ctypes.c_size_t(count))

    def synchronize(self) -> None:
        """Until the stream is done."""
        uploaded, self._uploads = self._uploads, []  # those, if not yet done, are on the stream: they can go once it is
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
        """Give what is kept back to the device."""
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
