"""A device whose operations are our CUDA kernels, whatever library owns its memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from math import prod
from typing import Any, Generic

import numpy as np
import numpy.typing as npt

from ..kernels.noise import counters
from ..kernels.topk import TopK
from ..types import A, Floats

FILTER = "bicubic"


class KernelDevice(ABC, Generic[A]):
    """See `resynth_fast.devices.base.Device`. A subclass provides the memory, and the few operations that have no kernel.

    `kernels` has the functions of `resynth_fast.kernels._cuda`; in tests those of `_native` stand in for them. They take arrays by
    DLPack.
    """

    def __init__(self, kernels: Any) -> None:
        self._kernels = kernels

    @abstractmethod
    def to_device(self, values: Any) -> A:
        """See `Device.to_device`."""

    @abstractmethod
    def to_host(self, values: A) -> npt.NDArray[Any]:
        """See `Device.to_host`."""

    @abstractmethod
    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> A:
        """An uninitialised contiguous array. Memory freed while queued kernels use it is reused only by work queued after them."""

    @abstractmethod
    def _stream(self) -> dict[str, int]:
        """`stream=` for a kernel: the stream of the engine, so that kernels run in order with its work."""

    def normal_rows(self, seeds: Sequence[int], calls: Sequence[int], shape: tuple[int, ...]) -> A:
        """See `Device.normal_rows`."""
        keys, states = (self.to_device(each) for each in counters(seeds, calls))
        out = self.empty((len(keys), prod(shape)), "float32")
        self._kernels.noise(keys, states, out, **self._stream())
        rows: A = out.reshape((len(keys), *shape))
        return rows

    def step(
        self,
        weights: A,
        samples: Sequence[A],
        outputs: Sequence[A],
        *,
        out: A,
        unconditional: A | None = None,
        noise: A | None = None,
        guided: A | None = None,
        scaled: A | None = None,
    ) -> None:
        """See `Device.step`."""
        self._kernels.step(weights, samples, outputs, unconditional, noise, out, guided, scaled, **self._stream())

    def to_uint8(self, image: A) -> A:
        """See `Device.to_uint8`."""
        count, _, height, width = image.shape
        out = self.empty((count, height, width, 3), "uint8")
        self._kernels.levels(image, out, **self._stream())
        return out

    def resize(self, pictures: Sequence[A], side: int) -> A:
        """See `Device.resize`."""
        out = self.empty((len(pictures), side, side, 3), "uint8")
        self._one_by_one(self._kernels.resize, pictures, side, out)
        return out

    def resize_to_unit(self, pictures: A, side: int) -> A:
        """See `Device.resize_to_unit`."""
        out = self.empty((len(pictures), 3, side, side), "float32")
        self._one_by_one(self._kernels.fit, pictures, side, out)
        return out

    def jpeg_round_trip(self, pictures: A, quality: int) -> A:
        """See `Device.jpeg_round_trip`."""
        count, height, width, _ = pictures.shape
        workspace = self._workspace(self._kernels.jpeg_workspace_bytes(height, width))
        out = self.empty((count, height, width, 3), "uint8")
        for i in range(count):
            self._kernels.jpeg_round_trip(pictures[i], quality, out[i], workspace, **self._stream())
        return out

    def textures(self, pictures: A, dimension: int) -> A:
        """See `Device.textures`."""
        count, side = pictures.shape[:2]
        workspace = self._workspace(self._kernels.texture_workspace_bytes(count, side))
        out = self.empty((count, dimension), "float32")
        self._kernels.texture(pictures, out, workspace, **self._stream())
        return out

    def topk(
        self,
        queries: Floats,
        blocks: Sequence[A],
        k: int,
        *,
        offsets: Floats,
        weights: A,
        groups: npt.NDArray[np.int32],
        group_count: int,
    ) -> TopK:
        """See `Device.topk`; k is at most `topk.DEVICE_K`."""
        count = len(blocks[0])
        shape = len(queries), group_count, min(k, count)
        scores, indices = self.empty(shape, "float32"), self.empty(shape, "int64")
        workspace = self._workspace(self._kernels.topk_workspace_bytes(shape[0], count, group_count, shape[2]))
        asked, added, of = (self.to_device(values) for values in (queries, offsets, groups))
        self._kernels.topk(asked, blocks, added, weights, of, scores, indices, workspace, **self._stream())
        found = TopK(self.to_host(scores), self.to_host(indices))
        if np.isnan(found.scores).any():
            raise ValueError("a score is not finite: a row or a query is not, or their product exceeds float32")
        return found

    def _one_by_one(self, kernel: Callable[..., None], pictures: Sequence[A] | A, side: int, out: A) -> None:
        """Run a resampling kernel on each picture. All run on one stream, so they share a workspace."""
        sizes = {tuple(picture.shape[:2]) for picture in pictures}
        workspace = self._workspace(max(self._kernels.preprocess_workspace_bytes(*size, side, side, FILTER) for size in sizes))
        for i, picture in enumerate(pictures):
            kernel(picture, FILTER, out[i], workspace, **self._stream())

    def _workspace(self, size_bytes: int) -> A:
        return self.empty((size_bytes,), "uint8")
