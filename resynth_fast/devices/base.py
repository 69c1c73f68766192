"""Where arrays are: what a walk and a description do to them, here on the host, on a GPU in the backend that runs there.

An engine that computes elsewhere than on the host has a `place` like this one. What it is given as the arrays of its place it
answers as such. Of a walk nothing is copied to the host but its pictures as bytes, of a description nothing but the features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..kernels.noise import normal_rows
from ..kernels.preprocess import fitted, jpeg_round_trip, levels, resize
from ..kernels.step import step
from ..kernels.texture import textures

Array = Any
"""(b, …): a NumPy array, or what has `shape`, `len`, `reshape`, and integers and slices as indices, which give views."""


class Place(Protocol):
    """Operations whose results are where their arguments are."""

    def here(self, values: Array) -> Array:
        """`values`, wherever they are, at this place."""

    def host(self, values: Array) -> npt.NDArray[Any]:
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

    def joined(self, parts: Sequence[Array]) -> Array:
        """Rows after one another."""

    def full(self, rows: int, value: float) -> Array:
        """(rows,) float32, all `value`."""

    def wait(self) -> None:
        """Until all that was asked of the place is done."""

    def finite(self, values: Array) -> bool:
        """Whether all are finite."""

    def deviation(self, values: Array) -> npt.NDArray[np.float64]:
        """Standard deviation of each row of (b, c, h, w), (b,) on the host."""

    def levels(self, image: Array) -> Array:
        """See `preprocess.levels`; the same bits."""

    def resized(self, pictures: Sequence[Array], side: int) -> Array:
        """Pictures (H, W, 3) uint8, each of its own size → (n, side, side, 3), see `preprocess.resize`."""

    def through_jpeg(self, pictures: Array, quality: int) -> Array:
        """(n, H, W, 3) uint8 → the same; see `preprocess.jpeg_round_trip`."""

    def fitted(self, pictures: Array, side: int) -> Array:
        """See `preprocess.fitted`."""

    def textures(self, pictures: Array, dimension: int) -> Array:
        """See `texture.textures`."""


class Host:
    """The processor's memory, as NumPy arrays."""

    normal_rows = staticmethod(normal_rows)
    step = staticmethod(step)
    levels = staticmethod(levels)
    fitted = staticmethod(fitted)
    textures = staticmethod(textures)
    empty_like = staticmethod(np.empty_like)
    joined = staticmethod(np.concatenate)

    def here(self, values: Array) -> Array:
        """See `Place.here`."""
        return values

    def host(self, values: Array) -> npt.NDArray[Any]:
        """See `Place.host`."""
        found: npt.NDArray[Any] = values
        return found

    def full(self, rows: int, value: float) -> Array:
        """See `Place.full`."""
        return np.full(rows, value, np.float32)

    def wait(self) -> None:
        """See `Place.wait`: it always is."""

    def finite(self, values: Array) -> bool:
        """See `Place.finite`."""
        return bool(np.isfinite(values).all())

    def deviation(self, values: Array) -> npt.NDArray[np.float64]:
        """See `Place.deviation`."""
        found: npt.NDArray[np.float64] = values.std(axis=(1, 2, 3), dtype=np.float64)
        return found

    def resized(self, pictures: Sequence[Array], side: int) -> Array:
        """See `Place.resized`."""
        return np.stack([resize(picture, side, side) for picture in pictures])

    def through_jpeg(self, pictures: Array, quality: int) -> Array:
        """See `Place.through_jpeg`."""
        return np.stack([jpeg_round_trip(picture, quality) for picture in pictures])


HOST = Host()


def place_of(engine: object) -> Place:
    """Where `engine` takes and gives its arrays."""
    found: Place = getattr(engine, "place", HOST)
    return found


def moved(values: Array, place: Place, to: Place) -> Array:
    """`values` of `place` at the place `to`: as they are where that is the same, else by way of the host."""
    return values if place is to else to.here(place.host(values))
