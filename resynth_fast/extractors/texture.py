"""The texture descriptor: statistics of pixel noise and texture, without weights.

Blocks are unscaled; `scoring` scales them. `kernels/texture_twin.py` documents each block.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from types import MappingProxyType
from typing import Any

import numpy as np

from ..bundle import Bundle
from ..devices.base import CPU, Device
from ..engines.pool import EnginePool
from ..errors import BundleError, ConfigError, InputError
from ..types import Array, Bytes, Floats

_MOST_WAVELET_LEVELS = 5


def matches(bundle: Bundle) -> bool:
    """Whether `bundle` is of family `texture`."""
    return bundle.family == "texture"


def open(bundle: Bundle, pool: EnginePool | None, working_size: int) -> TextureExtractor:
    """The extractor of a bundle, for squares of `working_size` px."""
    return TextureExtractor(working_size)


@dataclass(frozen=True, slots=True)
class TextureExtractor:
    """The descriptor of pictures of working_size px. ConfigError unless it is a multiple of 8 in 32 … 4096."""

    working_size: int = 256

    def __post_init__(self) -> None:
        if not _fits(self.working_size):
            raise ConfigError(f"working_size is {self.working_size}; it must be a multiple of 8, 32 … 4096 px")

    @property
    def blocks(self) -> tuple[str, ...]:
        """Names of the blocks, in the order of the columns."""
        return tuple(self.block_sizes)

    @property
    def block_sizes(self) -> Mapping[str, int]:
        """Name → number of features, in the order of the columns. The spectrum and wavelet blocks grow with the size."""
        return _block_sizes(self.working_size)

    @property
    def dimension(self) -> int:
        """Number of columns of `extract`."""
        return sum(self.block_sizes.values())

    @property
    def device(self) -> Device[Any]:
        """The CPU. Pictures on another device are described there (see `extract`)."""
        return CPU

    @property
    def backend(self) -> str:
        """See `Extractor.backend`: there is no network."""
        return ""

    @property
    def embeds(self) -> bool:
        """See `Extractor.embeds`."""
        return False

    def embed(self, batch: Bytes) -> Floats:
        """See `Extractor.embed`."""
        raise BundleError("the texture extractor has no embedding; choose an extractor exported with --last")

    def extract(self, batch: Array, device: Device[Any] = CPU) -> Floats:
        """(n, S, S, 3) uint8 on `device` → (n, dimension) float32 on the host, finite, with the blocks side by side and unscaled.

        A picture's row is the same to the last bit, whatever else is in the batch. InputError for another shape.
        """
        size = self.working_size
        if batch.shape[1:] != (size, size, 3) or (isinstance(batch, np.ndarray) and batch.dtype != np.uint8):
            raise InputError(f"batch is {batch.shape} {batch.dtype}; it must be (n, {size}, {size}, 3) uint8")
        features = device.to_host(device.textures(batch, self.dimension))
        assert np.isfinite(features).all()
        return features


def describe(pixels: Bytes) -> dict[str, Floats]:
    """(S, S, 3) uint8 sRGB, S a multiple of 8 in 32 … 4096 → block name → (k,) float32, in the order of the columns.

    InputError for another shape or dtype.
    """
    side = pixels.shape[0] if pixels.ndim else 0
    if pixels.shape != (side, side, 3) or pixels.dtype != np.uint8 or not _fits(side):
        raise InputError(f"pixels are {pixels.shape} {pixels.dtype}; they must be (S, S, 3) uint8, S a multiple of 8 of 32 … 4096")
    extractor = TextureExtractor(side)
    row, ends = extractor.extract(pixels[None])[0], list(accumulate(extractor.block_sizes.values()))
    return dict(zip(extractor.blocks, np.split(row, ends[:-1]), strict=True))


def _fits(side: int) -> bool:
    return 32 <= side <= 4096 and side % 8 == 0


@lru_cache
def _block_sizes(side: int) -> Mapping[str, int]:
    levels, band = 0, side
    while band % 2 == 0 and band >= 16 and levels < _MOST_WAVELET_LEVELS:
        levels, band = levels + 1, band // 2
    sizes = {
        "srm": 4 * 125,
        "srm_half": 4 * 125,
        "residual": 8 * 5,
        "residual_half": 8 * 5,
        "lbp": 3 * 256,
        "dct": 4 * 64,
        "wavelet": 9 * (2 + 3 * (levels - 1)),
        "gradient": 4 * (8 + 2 + 7 + 5),
        "colour": 4 * (2 + 7) + 2 * 16 + 6 + 3,
        "chroma": 3 * 2 * 81,
        "spectrum": side // 4,
    }
    return MappingProxyType(sizes)
