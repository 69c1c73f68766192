"""Memory and one stream of a CUDA device, through the driver that every machine with an NVIDIA GPU has: no toolkit, no torch."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import DeviceError

LIBRARY = "libcuda.so.1"
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_…
_OUT_OF_MEMORY = 2


class Device:
    """The first CUDA device, by its primary context, which other libraries of the process share. Methods may be called by any thread."""

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
        self.enter()
        self._call("cuStreamCreate", ctypes.byref(stream), ctypes.c_uint(1))  # does not wait for the default stream
        self.stream = int(stream.value or 0)
        self.compute_capability = f"{self._attribute(device, _MAJOR)}.{self._attribute(device, _MINOR)}"

    def enter(self) -> None:
        """Make this device the calling thread's."""
        self._call("cuCtxSetCurrent", self._context)

    def allocate(self, size_bytes: int) -> int:
        """Address of new device memory; DeviceError if there is not enough."""
        address = ctypes.c_uint64()
        self._call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(size_bytes))
        return address.value

    def free(self, address: int) -> None:
        """Give `allocate`'s memory back."""
        self._call("cuMemFree_v2", ctypes.c_uint64(address))

    def upload(self, address: int, values: npt.NDArray[Any]) -> None:
        """Copy a contiguous array to the device; done when this returns, and before what is put on the stream afterwards."""
        self._call(
            "cuMemcpyHtoDAsync_v2",
            ctypes.c_uint64(address),
            ctypes.c_void_p(values.ctypes.data),
            ctypes.c_size_t(values.nbytes),
            self._stream(),
        )
        self.wait()

    def download(self, address: int, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
        """A float32 array from the device, after all that is on the stream."""
        values = np.empty(shape, np.float32)
        self._call(
            "cuMemcpyDtoHAsync_v2",
            ctypes.c_void_p(values.ctypes.data),
            ctypes.c_uint64(address),
            ctypes.c_size_t(values.nbytes),
            self._stream(),
        )
        self.wait()
        return values

    def wait(self) -> None:
        """Until the stream is done."""
        self._call("cuStreamSynchronize", self._stream())

    def _stream(self) -> ctypes.c_void_p:
        return ctypes.c_void_p(self.stream)

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
