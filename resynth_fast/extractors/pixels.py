"""Pixel normalisation: what every picture goes through before its features are taken.

Probe, resyntheses and gallery go through the same recipe, so that size, border and codec do not tell them apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from resynth_fast.devices.base import CPU, Device
from resynth_fast.errors import ConfigError, InputError
from resynth_fast.kernels.preprocess import centre_square

from ..types import Array


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
        """`normalised` for one picture."""
        result: npt.NDArray[np.uint8] = self.normalised([pixels])[0]
        return result

    def normalised(self, pictures: Sequence[npt.NDArray[np.uint8]] | Array, device: Device[Any] = CPU) -> Array:
        """n pictures (H, W, 3) uint8 sRGB, on the host or at `device` -> (n, S, S, 3) uint8 there, S = working_size.

        Centre square, border dropped, antialiased bicubic, then JPEG with 4:2:0 chroma and back. Raises InputError
        for another shape or dtype.
        """
        for picture in pictures:
            if isinstance(picture, np.ndarray) and (picture.shape[2:] != (3,) or picture.dtype != np.uint8 or 0 in picture.shape):
                raise InputError(f"pixels are {picture.shape} {picture.dtype}; they must be (H, W, 3) uint8")
        # What lies on the host is cropped there: what is cut off need not be copied.
        resized: Array = device.resize([device.to_device(centre_square(picture, self.border)) for picture in pictures], self.working_size)
        return device.jpeg_round_trip(resized, self.jpeg_quality) if self.jpeg_quality is not None else resized
