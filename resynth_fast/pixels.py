"""Pixel normalisation: what every picture goes through before its features are taken.

Probe, resyntheses and gallery go through the same recipe, so that size, border and codec do not tell them apart.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from resynth_fast.errors import ConfigError, InputError


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
        image = Image.fromarray(np.ascontiguousarray(self._crop(pixels)))
        resized = image.resize((self.working_size, self.working_size), Image.Resampling.BICUBIC)
        return np.array(resized if self.jpeg_quality is None else _through_jpeg(resized, self.jpeg_quality), np.uint8)

    def _crop(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        height, width = pixels.shape[:2]
        side = min(height, width)
        dropped = round(self.border * side)  # whole pixels: the crop itself must not resample
        top, left = (height - side) // 2 + dropped, (width - side) // 2 + dropped
        kept = side - 2 * dropped
        return pixels[top : top + kept, left : left + kept]


def _through_jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
    with Image.open(buffer, formats=("JPEG",)) as coded:
        return coded.convert("RGB")
