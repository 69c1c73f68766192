"""A CUDA device for engines whose library has no arrays of its own: memory by the driver, operations by our kernels."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import kernels
from ..errors import DeviceError
from ..types import Doubles
from . import cuda_driver
from .base import CPU
from .cuda_array import CudaArray
from .kernels import KernelDevice


class CudaDevice(KernelDevice[CudaArray]):
    """See `KernelDevice`. Operations are queued on the context's stream; only copies to the host wait."""

    def __init__(self, context: Any, kernels: Any) -> None:
        super().__init__(kernels)
        self.context = context

    def to_device(self, values: CudaArray | npt.NDArray[Any]) -> CudaArray:
        """See `Device.to_device`."""
        return values if isinstance(values, CudaArray) else CudaArray.of(self.context, values)

    def to_host(self, values: CudaArray) -> npt.NDArray[Any]:
        """See `Device.to_host`."""
        return values.to_host()

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> CudaArray:
        """See `KernelDevice.empty`."""
        return CudaArray.empty(self.context, shape, dtype)

    def empty_like(self, values: CudaArray) -> CudaArray:
        """See `Device.empty_like`."""
        return self.empty(values.shape, values.dtype)

    def concatenate(self, parts: Sequence[CudaArray]) -> CudaArray:
        """See `Device.concatenate`."""
        return CudaArray.concatenate(parts)

    def full(self, rows: int, value: float) -> CudaArray:
        """See `Device.full`."""
        array = self.empty((rows,), np.float32)
        self.context.fill(array.address, int(np.float32(value).view(np.uint32)), rows)
        return array

    def all_finite(self, values: CudaArray) -> bool:
        """See `Device.all_finite`; only one number is copied to the host."""
        found = self.to_device(np.zeros(1, np.int32))
        self._kernels.faults(values, found, **self._stream())
        return not found.to_host().any()

    def synchronize(self) -> None:
        """Wait until all work on the stream is done."""
        self.context.synchronize()

    def deviation(self, values: CudaArray) -> Doubles:
        """See `Device.deviation`; latents are small, so they are copied to the host."""
        return CPU.deviation(values.to_host())

    def _stream(self) -> dict[str, int]:
        return {"stream": self.context.stream}


@functools.cache
def cuda_device() -> CudaDevice | None:
    """The device of this process. None without a GPU or without CUDA kernels: arrays then go through the host."""
    if kernels.cuda() is None:
        return None
    try:
        return CudaDevice(cuda_driver.context(), kernels.cuda())
    except DeviceError:
        return None
