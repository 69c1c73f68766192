"""A place on a device as far as our kernels make it: each of them is called here, whoever owns the memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy.typing as npt

from .noise import words
from .place import Array


class DevicePlace(ABC):
    """See `resynth_fast.place.Place`; a subclass brings the memory, and the few operations that no kernel of ours does.

    `kernels` has the functions of `resynth_fast._cuda`; on the CPU those of `resynth_fast._native` stand in for them. They take
    arrays by DLPack. Beside that nothing is asked of an array here but its `shape`, `len`, `reshape`, and integers and slices
    as indices, which give views.
    """

    def __init__(self, kernels: Any) -> None:
        self._kernels = kernels

    @abstractmethod
    def here(self, values: Array) -> Array:
        """See `Place.here`."""

    @abstractmethod
    def host(self, values: Array) -> npt.NDArray[Any]:
        """See `Place.host`."""

    @abstractmethod
    def empty(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Array:
        """Contiguous memory, unspecified. One that is let go while kernels on the stream still use it is given out behind them only."""

    @abstractmethod
    def _stream(self) -> dict[str, int]:
        """`stream=` for a kernel: where the engine puts its own work, so that ours is done in its turn."""

    def normal_rows(self, seeds: Sequence[int], calls: Sequence[int], shape: tuple[int, ...]) -> Array:
        """See `Place.normal_rows`."""
        keys, counters = (self.here(each) for each in words(seeds, calls))
        out = self.empty((len(keys), prod(shape)), "float32")
        self._kernels.noise(keys, counters, out, **self._stream())
        return out.reshape((len(keys), *shape))

    def step(
        self, weights: Array, samples: Sequence[Array], outputs: Sequence[Array], *, out: Array, unconditional: Array | None = None,
        noise: Array | None = None, guided: Array | None = None, scaled: Array | None = None,
    ) -> None:  # fmt: skip
        """See `Place.step`."""
        self._kernels.step(weights, samples, outputs, unconditional, noise, out, guided, scaled, **self._stream())
