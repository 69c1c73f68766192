"""Extractors: features of a picture. One module a kind, found by listing (see `plugins`).

A module of a kind has `matches(bundle) -> bool`, usually by the bundle's family, and
`open(bundle, pool, working_size) -> Extractor`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from ..types import Array, Bytes, Floats

if TYPE_CHECKING:
    from ..devices.base import Device


class Extractor(Protocol):
    """Pictures in, features out."""

    @property
    def working_size(self) -> int:
        """Side of the square pictures that `extract` takes, in px."""

    @property
    def block_sizes(self) -> Mapping[str, int]:
        """Name → number of features of each block (a tap, a statistic), in the order of the columns."""

    @property
    def dimension(self) -> int:
        """Number of columns: the sum of block_sizes."""

    @property
    def device(self) -> Device[Any]:
        """The device that extracts features of pictures on the host."""

    @property
    def backend(self) -> str:
        """Version of the backend that runs its network; empty if it has none."""

    @property
    def embeds(self) -> bool:
        """Whether `embed` is available: the encoder's own embedding, for the score of the paper."""

    def embed(self, batch: Bytes) -> Floats:
        """(n, S, S, 3) uint8 sRGB → (n, e) float32. BundleError if it is not available."""

    def extract(self, batch: Array, device: Device[Any] = ...) -> Floats:
        """(n, S, S, 3) uint8 sRGB on `device`, by default the host → (n, dimension) float32 on the host, finite and unscaled.

        A row does not depend on the other rows.
        """
