"""Pixel normalisation: what every picture goes through before its features are taken.

Probe, resyntheses and gallery go through the same recipe, so that size, border and codec do not tell them apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from resynth_fast.errors import ConfigError, InputError
from resynth_fast.preprocess import centre_square, jpeg_round_trip, resize


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelRecipe:
    """working_size: side of the result in px, 8 … 4096. border: fraction of the centre square dropped on each side,
    0 … 0.25. jpeg_quality: 1 … 100, or None to leave the codec out.

    Raises ConfigError, naming field and value.
    """

    working_size: int
    border: float = 0.03
    jpeg_quality: int | None = 90

    def __post_init__(self) -> None:
        if not 8 <= self.working_size <= 4096:
            raise ConfigError(f"working_size is {self.working_size}; it must be 8 … 4096 px")
        if not 0 <= self.border <= 0.25:
            raise ConfigError(f"border is {self.border}; it must be a fraction of 0 … 0.25")
        if self.jpeg_quality is not None and not 1 <= self.jpeg_quality <= 100:
            raise ConfigError(f"jpeg_quality is {self.jpeg_quality}; it must be 1 … 100, or none")

    def normalise(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """(H, W, 3) uint8 sRGB -> (S, S, 3) uint8 with S = working_size.

        Centre square, border dropped, antialiased bicubic, then JPEG with 4:2:0 chroma and back. Raises InputError
        for another shape or dtype.
        """
        if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or 0 in pixels.shape:
            raise InputError(f"pixels are {pixels.shape} {pixels.dtype}; they must be (H, W, 3) uint8")
        resized = resize(centre_square(pixels, self.border), self.working_size, self.working_size)
        return resized if self.jpeg_quality is None else jpeg_round_trip(resized, self.jpeg_quality)
