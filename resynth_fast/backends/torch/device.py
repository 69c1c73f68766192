"""A device whose arrays are torch tensors. Our kernels take them without a copy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...devices.kernels import KernelDevice
from ...types import Doubles


class TorchDevice(KernelDevice[Tensor]):
    """See `KernelDevice`."""

    def __init__(self, torch_device: torch.device, kernels: Any) -> None:
        super().__init__(kernels)
        self.torch_device = torch_device

    def to_device(self, values: Tensor | npt.NDArray[Any]) -> Tensor:
        """See `Device.to_device`."""
        return (values if isinstance(values, Tensor) else torch.from_numpy(np.require(values, None, ("C", "W")))).to(self.torch_device)

    def to_host(self, values: Tensor) -> npt.NDArray[Any]:
        """See `Device.to_host`."""
        array: npt.NDArray[Any] = values.cpu().numpy()
        return array

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Tensor:
        """See `KernelDevice.empty`; torch allocates memory in the order of the stream."""
        return torch.empty(shape, dtype=getattr(torch, np.dtype(dtype).name), device=self.torch_device)

    def empty_like(self, values: Tensor) -> Tensor:
        """See `Device.empty_like`."""
        return torch.empty_like(values)

    def concatenate(self, parts: Sequence[Tensor]) -> Tensor:
        """See `Device.concatenate`."""
        return torch.cat(list(parts))

    def full(self, rows: int, value: float) -> Tensor:
        """See `Device.full`."""
        return torch.full((rows,), value, dtype=torch.float32, device=self.torch_device)

    def synchronize(self) -> None:
        """See `Device.synchronize`; waits for torch's current stream."""
        if self.torch_device.type == "cuda":
            torch.cuda.current_stream(self.torch_device).synchronize()

    def all_finite(self, values: Tensor) -> bool:
        """See `Device.all_finite`."""
        return bool(torch.isfinite(values).all())

    def deviation(self, values: Tensor) -> Doubles:
        """See `Device.deviation`."""
        return self.to_host(values.double().std((1, 2, 3), correction=0))

    def _stream(self) -> dict[str, int]:
        """torch's current stream, so that our kernels run in order with torch's own."""
        return {"stream": torch.cuda.current_stream(self.torch_device).cuda_stream} if self.torch_device.type == "cuda" else {}
