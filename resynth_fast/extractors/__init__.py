"""Extractors: pictures in, features out; one file a kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from ..arrays import Array

if TYPE_CHECKING:
    from ..devices.base import Device


class Extractor(Protocol):
    """What every extractor offers, whether it runs a network or counts pixels."""

    @property
    def working_size(self) -> int:
        """Side of the square pictures that `extract` takes, in px."""

    @property
    def block_sizes(self) -> Mapping[str, int]:
        """Name -> number of features of each block (a tap, a statistic), in the order of the columns."""

    @property
    def dimension(self) -> int:
        """Number of columns: the sum of block_sizes."""

    @property
    def device(self) -> Device[Any]:
        """Where features are made of pictures that lie on the host."""

    def extract(self, batch: Array, device: Device[Any] = ...) -> npt.NDArray[np.float32]:
        """(n, S, S, 3) uint8 sRGB at `device`, by default the host -> (n, dimension) float32, finite, unscaled, on the host.

        A row never depends on the others.
        """
