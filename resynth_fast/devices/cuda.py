"""A place in CUDA memory for engines whose library brings no arrays of its own, over the driver and our kernels."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import DeviceError
from . import cuda_driver
from .base import HOST
from .cuda_array import DeviceArray
from .kernels import DevicePlace


class CudaPlace(DevicePlace):
    """See `DevicePlace`. What it does is put on the device's stream; it waits where something is copied to the host alone."""

    def __init__(self, device: Any, kernels: Any) -> None:
        super().__init__(kernels)
        self.device = device

    def here(self, values: DeviceArray | npt.NDArray[Any]) -> DeviceArray:
        """See `Place.here`."""
        return values if isinstance(values, DeviceArray) else DeviceArray.of(self.device, values)

    def host(self, values: DeviceArray) -> npt.NDArray[Any]:
        """See `Place.host`."""
        return values.host()

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> DeviceArray:
        """See `DevicePlace.empty`."""
        return DeviceArray.empty(self.device, shape, dtype)

    def empty_like(self, values: DeviceArray) -> DeviceArray:
        """See `Place.empty_like`."""
        return self.empty(values.shape, values.dtype)

    def joined(self, parts: Sequence[DeviceArray]) -> DeviceArray:
        """See `Place.joined`."""
        return DeviceArray.joined(parts)

    def full(self, rows: int, value: float) -> DeviceArray:
        """See `Place.full`."""
        array = self.empty((rows,), np.float32)
        self.device.fill(array.address, int(np.float32(value).view(np.uint32)), rows)
        return array

    def finite(self, values: DeviceArray) -> bool:
        """See `Place.finite`; one number is copied to the host."""
        found = self.here(np.zeros(1, np.int32))
        self._kernels.faults(values, found, **self._stream())
        return not found.host().any()

    def wait(self) -> None:
        """Until all that was put on the stream is done."""
        self.device.wait()

    def deviation(self, values: DeviceArray) -> npt.NDArray[np.float64]:
        """See `Place.deviation`; latents are small, and go through the host."""
        return HOST.deviation(values.host())

    def _stream(self) -> dict[str, int]:
        return {"stream": self.device.stream}


@functools.cache
def cuda_place() -> CudaPlace | None:
    """That of the process; None where there is no device, or the package was built without CUDA kernels: arrays then go through the host."""
    if not importlib.util.find_spec("resynth_fast.kernels._cuda"):
        return None
    try:
        return CudaPlace(cuda_driver.device(), importlib.import_module("resynth_fast.kernels._cuda"))
    except DeviceError:
        return None
