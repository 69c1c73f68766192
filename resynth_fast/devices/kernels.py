"""A device on a device as far as our kernels make it: each of them is called here, whoever owns the memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy.typing as npt

from ..kernels.noise import counters
from .base import Array

FILTER = "bicubic"


class KernelDevice(ABC):
    """See `resynth_fast.devices.base.Device`; a subclass brings the memory, and the few operations that no kernel of ours does.

    `kernels` has the functions of `resynth_fast.kernels._cuda`; on the CPU those of `resynth_fast.kernels._native` stand in for them. They take
    arrays by DLPack. Beside that nothing is asked of an array here but its `shape`, `len`, `reshape`, and integers and slices
    as indices, which give views.
    """

    def __init__(self, kernels: Any) -> None:
        self._kernels = kernels

    @abstractmethod
    def to_device(self, values: Array) -> Array:
        """See `Device.to_device`."""

    @abstractmethod
    def to_host(self, values: Array) -> npt.NDArray[Any]:
        """See `Device.to_host`."""

    @abstractmethod
    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        """Contiguous memory, unspecified. One that is let go while kernels on the stream still use it is given out behind them only."""

    @abstractmethod
    def _stream(self) -> dict[str, int]:
        """`stream=` for a kernel: where the engine puts its own work, so that ours is done in its turn."""

    def normal_rows(self, seeds: Sequence[int], calls: Sequence[int], shape: tuple[int, ...]) -> Array:
        """See `Device.normal_rows`."""
        keys, states = (self.to_device(each) for each in counters(seeds, calls))
        out = self.empty((len(keys), prod(shape)), "float32")
        self._kernels.noise(keys, states, out, **self._stream())
        return out.reshape((len(keys), *shape))

    def step(
        self,
        weights: Array,
        samples: Sequence[Array],
        outputs: Sequence[Array],
        *,
        out: Array,
        unconditional: Array | None = None,
        noise: Array | None = None,
        guided: Array | None = None,
        scaled: Array | None = None,
    ) -> None:
        """See `Device.step`."""
        self._kernels.step(weights, samples, outputs, unconditional, noise, out, guided, scaled, **self._stream())

    def to_uint8(self, image: Array) -> Array:
        """See `Device.to_uint8`."""
        count, _, height, width = image.shape
        out = self.empty((count, height, width, 3), "uint8")
        self._kernels.levels(image, out, **self._stream())
        return out

    def resize(self, pictures: Sequence[Array], side: int) -> Array:
        """See `Device.resize`."""
        out = self.empty((len(pictures), side, side, 3), "uint8")
        self._one_by_one(self._kernels.resize, pictures, side, out)
        return out

    def resize_to_unit(self, pictures: Array, side: int) -> Array:
        """See `Device.resize_to_unit`."""
        out = self.empty((len(pictures), 3, side, side), "float32")
        self._one_by_one(self._kernels.fit, pictures, side, out)
        return out

    def jpeg_round_trip(self, pictures: Array, quality: int) -> Array:
        """See `Device.jpeg_round_trip`."""
        count, height, width, _ = pictures.shape
        workspace = self._workspace(self._kernels.jpeg_workspace_bytes(height, width))
        out = self.empty((count, height, width, 3), "uint8")
        for i in range(count):
            self._kernels.jpeg_round_trip(pictures[i], quality, out[i], workspace, **self._stream())
        return out

    def textures(self, pictures: Array, dimension: int) -> Array:
        """See `Device.textures`."""
        count, side = pictures.shape[:2]
        workspace = self._workspace(self._kernels.texture_workspace_bytes(count, side))
        out = self.empty((count, dimension), "float32")
        self._kernels.texture(pictures, out, workspace, **self._stream())
        return out

    def _one_by_one(self, kernel: Callable[..., None], pictures: Sequence[Array] | Array, side: int, out: Array) -> None:
        """`kernel`, which resamples one picture, over all: on one stream, so that they may share the workspace."""
        sizes = {tuple(picture.shape[:2]) for picture in pictures}
        workspace = self._workspace(max(self._kernels.preprocess_workspace_bytes(*size, side, side, FILTER) for size in sizes))
        for i, picture in enumerate(pictures):
            kernel(picture, FILTER, out[i], workspace, **self._stream())

    def _workspace(self, size_bytes: int) -> Array:
        return self.empty((size_bytes,), "uint8")
