"""Where arrays are: what a walk and a description do to them, here on the host, on a GPU in the backend that runs there.

An engine that computes elsewhere than on the host has a `device` like this one. What it is given as the arrays of its place it
answers as such. Of a walk nothing is copied to the host but its pictures as bytes, of a description nothing but the features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..kernels.noise import normal_rows
from ..kernels.preprocess import jpeg_round_trip, resize, resize_to_unit, to_uint8
from ..kernels.step import step
from ..kernels.texture import textures

Array = Any
"""(b, …): a NumPy array, or what has `shape`, `len`, `reshape`, and integers and slices as indices, which give views."""


class Device(Protocol):
    """Operations whose results are where their arguments are."""

    def to_device(self, values: Array) -> Array:
        """`values`, wherever they are, at this place."""

    def to_host(self, values: Array) -> npt.NDArray[Any]:
        """`values` of this place as a NumPy array."""

    def normal_rows(self, seeds: Sequence[int], calls: Sequence[int], shape: tuple[int, ...]) -> Array:
        """See `noise.normal_rows`; the same bits."""

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
        """See `step.step`; the same bits."""

    def empty_like(self, values: Array) -> Array:
        """Memory for as many values of the same type."""

    def concatenate(self, parts: Sequence[Array]) -> Array:
        """Rows after one another."""

    def full(self, rows: int, value: float) -> Array:
        """(rows,) float32, all `value`."""

    def synchronize(self) -> None:
        """Until all that was asked of the device is done."""

    def all_finite(self, values: Array) -> bool:
        """Whether all are finite."""

    def deviation(self, values: Array) -> npt.NDArray[np.float64]:
        """Standard deviation of each row of (b, c, h, w), (b,) on the host."""

    def to_uint8(self, image: Array) -> Array:
        """See `preprocess.to_uint8`; the same bits."""

    def resize(self, pictures: Sequence[Array], side: int) -> Array:
        """Pictures (H, W, 3) uint8, each of its own size → (n, side, side, 3), see `preprocess.resize`."""

    def jpeg_round_trip(self, pictures: Array, quality: int) -> Array:
        """(n, H, W, 3) uint8 → the same; see `preprocess.jpeg_round_trip`."""

    def resize_to_unit(self, pictures: Array, side: int) -> Array:
        """See `preprocess.resize_to_unit`."""

    def textures(self, pictures: Array, dimension: int) -> Array:
        """See `texture.textures`."""


class CpuDevice:
    """The processor's memory, as NumPy arrays."""

    normal_rows = staticmethod(normal_rows)
    step = staticmethod(step)
    to_uint8 = staticmethod(to_uint8)
    resize_to_unit = staticmethod(resize_to_unit)
    textures = staticmethod(textures)
    empty_like = staticmethod(np.empty_like)
    concatenate = staticmethod(np.concatenate)

    def to_device(self, values: Array) -> Array:
        """See `Device.to_device`."""
        return values

    def to_host(self, values: Array) -> npt.NDArray[Any]:
        """See `Device.to_host`."""
        found: npt.NDArray[Any] = values
        return found

    def full(self, rows: int, value: float) -> Array:
        """See `Device.full`."""
        return np.full(rows, value, np.float32)

    def synchronize(self) -> None:
        """See `Device.synchronize`: it always is."""

    def all_finite(self, values: Array) -> bool:
        """See `Device.all_finite`."""
        return bool(np.isfinite(values).all())

    def deviation(self, values: Array) -> npt.NDArray[np.float64]:
        """See `Device.deviation`."""
        found: npt.NDArray[np.float64] = values.std(axis=(1, 2, 3), dtype=np.float64)
        return found

    def resize(self, pictures: Sequence[Array], side: int) -> Array:
        """See `Device.resize`."""
        return np.stack([resize(picture, side, side) for picture in pictures])

    def jpeg_round_trip(self, pictures: Array, quality: int) -> Array:
        """See `Device.jpeg_round_trip`."""
        return np.stack([jpeg_round_trip(picture, quality) for picture in pictures])


CPU = CpuDevice()


def device_of(engine: object) -> Device:
    """Where `engine` takes and gives its arrays."""
    found: Device = getattr(engine, "device", CPU)
    return found


def transfer(values: Array, device: Device, to: Device) -> Array:
    """`values` of `device` at the device `to`: as they are where that is the same, else by way of the host."""
    return values if device is to else to.to_device(device.to_host(values))
