"""Arrays as torch tensors on one device, worked on by our kernels, which take them as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...devices.kernels import DevicePlace


class TorchPlace(DevicePlace):
    """See `DevicePlace`."""

    def __init__(self, device: torch.device, kernels: Any) -> None:
        super().__init__(kernels)
        self.device = device

    def here(self, values: Tensor | npt.NDArray[Any]) -> Tensor:
        """See `Place.here`."""
        return (values if isinstance(values, Tensor) else torch.from_numpy(np.require(values, None, ("C", "W")))).to(self.device)

    def host(self, values: Tensor) -> npt.NDArray[Any]:
        """See `Place.host`."""
        found: npt.NDArray[Any] = values.cpu().numpy()
        return found

    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Tensor:
        """See `DevicePlace.empty`; torch gives memory out in the order of the stream."""
        return torch.empty(shape, dtype=getattr(torch, np.dtype(dtype).name), device=self.device)

    def empty_like(self, values: Tensor) -> Tensor:
        """See `Place.empty_like`."""
        return torch.empty_like(values)

    def joined(self, parts: Sequence[Tensor]) -> Tensor:
        """See `Place.joined`."""
        return torch.cat(list(parts))

    def full(self, rows: int, value: float) -> Tensor:
        """See `Place.full`."""
        return torch.full((rows,), value, dtype=torch.float32, device=self.device)

    def wait(self) -> None:
        """See `Place.wait`; of the stream that torch puts its work on."""
        if self.device.type == "cuda":
            torch.cuda.current_stream(self.device).synchronize()

    def finite(self, values: Tensor) -> bool:
        """See `Place.finite`."""
        return bool(torch.isfinite(values).all())

    def deviation(self, values: Tensor) -> npt.NDArray[np.float64]:
        """See `Place.deviation`."""
        return self.host(values.double().std((1, 2, 3), correction=0))

    def _stream(self) -> dict[str, int]:
        """Where torch puts its own work, so that ours is done in its turn."""
        return {"stream": torch.cuda.current_stream(self.device).cuda_stream} if self.device.type == "cuda" else {}
