"""Pixel normalisation, which every picture goes through before its features are extracted.

Probe, resyntheses and gallery go through the same recipe, so that size, border and codec do not tell them apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from resynth_fast.devices.base import CPU, Device
from resynth_fast.errors import ConfigError, InputError
from resynth_fast.kernels.preprocess import centre_square

from ..types import Array, Bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelRecipe:
    """How pictures are normalised.

    Args:
        working_size: Side of the result in px, 8 … 4096.
        border: Fraction of the centre square that is dropped on each side, 0 … 0.25.
        jpeg_quality: Quality of a JPEG round trip, 1 … 100; None for no round trip.

    Raises:
        ConfigError: A field is out of range.
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

    def normalise(self, pixels: Bytes) -> Bytes:
        """See `normalised`, for one picture (H, W, 3) uint8 → (S, S, 3) uint8."""
        result: Bytes = self.normalised([pixels])[0]
        return result

    def normalised(self, pictures: Sequence[Bytes] | Array, device: Device[Any] = CPU) -> Array:
        """n pictures (H, W, 3) uint8 sRGB, on the host or on `device` → (n, S, S, 3) uint8 on `device`, S = working_size.

        The centre square without its border is resized (bicubic, antialiased), then goes through JPEG with 4:2:0 chroma.
        InputError for another shape or dtype.
        """
        for picture in pictures:
            if isinstance(picture, np.ndarray) and (picture.shape[2:] != (3,) or picture.dtype != np.uint8 or 0 in picture.shape):
                raise InputError(f"pixels are {picture.shape} {picture.dtype}; they must be (H, W, 3) uint8")
        # Pictures on the host are cropped there, so that the pixels that are cut off are not copied to the device.
        resized: Array = device.resize([device.to_device(centre_square(picture, self.border)) for picture in pictures], self.working_size)
        return device.jpeg_round_trip(resized, self.jpeg_quality) if self.jpeg_quality is not None else resized
