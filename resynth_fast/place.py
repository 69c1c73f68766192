"""Where arrays are: the dozen things that a walk does to them, here on the host, on a GPU in the backend that runs there.

An engine that computes elsewhere than on the host has a `place` like this one. What it is given as the arrays of its place it
answers as such, and nothing of the walk is copied until its pictures are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from .noise import normal_rows
from .step import step

Array = Any
"""(b, …): a NumPy array, or what takes its operators, indices and `len` as one does."""


class Place(Protocol):
    """Operations whose results are where their arguments are."""

    def here(self, values: Array) -> Array:
        """`values`, wherever they are, at this place."""

    def host(self, values: Array) -> npt.NDArray[Any]:
        """`values` of this place as a NumPy array."""

    def normal_rows(self, seeds: Sequence[int], calls: Sequence[int], shape: tuple[int, ...]) -> Array:
        """See `noise.normal_rows`; the same bits."""

    def step(
        self, weights: Array, samples: Sequence[Array], outputs: Sequence[Array], *, out: Array, unconditional: Array | None = None,
        noise: Array | None = None, guided: Array | None = None, scaled: Array | None = None,
    ) -> None:  # fmt: skip
        """See `step.step`; the same bits."""

    def empty_like(self, values: Array) -> Array:
        """Memory for as many values of the same type."""

    def joined(self, parts: Sequence[Array]) -> Array:
        """Rows after one another."""

    def full(self, rows: int, value: float) -> Array:
        """(rows,) float32, all `value`."""

    def finite(self, values: Array) -> bool:
        """Whether all are finite."""

    def deviation(self, values: Array) -> Array:
        """Standard deviation of each row, (b, 1, 1, 1) float64."""

    def floats(self, values: Array) -> Array:
        """`values` in float32."""

    def pixels(self, image: Array) -> npt.NDArray[np.uint8]:
        """(b, 3, H, W) float32 in [0, 1] → (b, H, W, 3) on the host."""


class Host:
    """The processor's memory, as NumPy arrays."""

    normal_rows = staticmethod(normal_rows)
    step = staticmethod(step)
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

    def finite(self, values: Array) -> bool:
        """See `Place.finite`."""
        return bool(np.isfinite(values).all())

    def deviation(self, values: Array) -> Array:
        """See `Place.deviation`."""
        return values.std(axis=(1, 2, 3), keepdims=True, dtype=np.float64)

    def floats(self, values: Array) -> Array:
        """See `Place.floats`."""
        return values.astype(np.float32)

    def pixels(self, image: Array) -> npt.NDArray[np.uint8]:
        """See `Place.pixels`."""
        levels: npt.NDArray[np.uint8] = np.rint(image.transpose(0, 2, 3, 1).clip(0, 1) * 255).astype(np.uint8)
        return levels


HOST = Host()


def place_of(engine: object) -> Place:
    """Where `engine` takes and gives its arrays."""
    found: Place = getattr(engine, "place", HOST)
    return found
