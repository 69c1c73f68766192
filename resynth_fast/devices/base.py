"""Devices: where arrays are, and the operations of sampling and feature extraction on them.

An engine given arrays on its device returns arrays on that device. Only the final uint8 pictures and the features are
copied to the host.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..kernels.finite import all_finite
from ..kernels.noise import normal_rows
from ..kernels.preprocess import jpeg_round_trip, resize, resize_to_unit, to_uint8
from ..kernels.step import step
from ..kernels.texture import textures
from ..kernels.topk import TopK, topk
from ..types import A, Array, Doubles, Floats


class Device(Protocol[A]):
    """Operations on arrays of type `A`. Arguments are arrays on this device, and so are results, unless said otherwise."""

    def to_device(self, values: Any) -> A:
        """Copy a NumPy array to this device; an array that is there already is returned as it is."""

    def to_host(self, values: A) -> npt.NDArray[Any]:
        """Copy an array of this device to a NumPy array."""

    def normal_rows(self, seeds: Sequence[int], calls: Sequence[int], shape: tuple[int, ...]) -> A:
        """See `noise.normal_rows`; the same bits on every device."""

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
        """See `step.step`; the same bits on every device."""

    def empty_like(self, values: A) -> A:
        """An uninitialised array of the same shape and type."""

    def concatenate(self, parts: Sequence[A]) -> A:
        """Join arrays along their first axis."""

    def full(self, rows: int, value: float) -> A:
        """(rows,) float32, each element `value`."""

    def synchronize(self) -> None:
        """Wait until all work queued on the device is done."""

    def all_finite(self, values: A) -> bool:
        """Whether no element is NaN or infinite."""

    def deviation(self, values: A) -> Doubles:
        """Standard deviation of each row of (b, c, h, w): (b,) on the host."""

    def to_uint8(self, image: A) -> A:
        """See `preprocess.to_uint8`; the same bits on every device."""

    def resize(self, pictures: Sequence[A] | A, side: int) -> A:
        """n pictures (H, W, 3) uint8 of any sizes → (n, side, side, 3); see `preprocess.resize`."""

    def jpeg_round_trip(self, pictures: A, quality: int) -> A:
        """(n, H, W, 3) uint8 → the same shape; see `preprocess.jpeg_round_trip`."""

    def resize_to_unit(self, pictures: A, side: int) -> A:
        """See `preprocess.resize_to_unit`."""

    def textures(self, pictures: A, dimension: int) -> A:
        """See `texture.textures`."""

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
        """See `topk.topk`: blocks and weights are arrays of this device; what else is given, and the result, are on the host."""


class CpuDevice:
    """The processor: its arrays are NumPy arrays."""

    normal_rows = staticmethod(normal_rows)
    step = staticmethod(step)
    all_finite = staticmethod(all_finite)
    to_uint8 = staticmethod(to_uint8)
    resize_to_unit = staticmethod(resize_to_unit)
    textures = staticmethod(textures)
    topk = staticmethod(topk)
    empty_like = staticmethod(np.empty_like)
    concatenate = staticmethod(np.concatenate)

    def to_device(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """See `Device.to_device`."""
        return values

    def to_host(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """See `Device.to_host`."""
        return values

    def full(self, rows: int, value: float) -> npt.NDArray[Any]:
        """See `Device.full`."""
        return np.full(rows, value, np.float32)

    def synchronize(self) -> None:
        """See `Device.synchronize`; calls on the processor return when they are done."""

    def deviation(self, values: npt.NDArray[Any]) -> Doubles:
        """See `Device.deviation`."""
        deviation: Doubles = values.std(axis=(1, 2, 3), dtype=np.float64)
        return deviation

    def resize(self, pictures: Sequence[npt.NDArray[Any]] | npt.NDArray[Any], side: int) -> npt.NDArray[Any]:
        """See `Device.resize`."""
        return np.stack([resize(picture, side, side) for picture in pictures])

    def jpeg_round_trip(self, pictures: npt.NDArray[Any], quality: int) -> npt.NDArray[Any]:
        """See `Device.jpeg_round_trip`."""
        return np.stack([jpeg_round_trip(picture, quality) for picture in pictures])


CPU = CpuDevice()


def transfer(values: Array, source: Device[Any], target: Device[Any]) -> Any:
    """Move `values` from `source` to `target`: unchanged where the two are the same, else through the host."""
    return values if source is target else target.to_device(source.to_host(values))
