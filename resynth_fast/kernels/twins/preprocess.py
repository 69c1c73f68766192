"""Twin of the preprocess kernels: Pillow, whose arithmetic they reproduce."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from ...types import Bytes, Floats

Number = TypeVar("Number", np.uint8, np.float32)
Filter = Literal["box", "bilinear", "bicubic", "lanczos"]


def resize(pixels: npt.NDArray[Number], height: int, width: int, filter: Filter) -> npt.NDArray[Number]:
    """See `preprocess.resize`."""
    resampling = Image.Resampling[filter.upper()]

    def one(array: npt.NDArray[Number]) -> npt.NDArray[Number]:
        image = Image.fromarray(np.ascontiguousarray(array))
        # in two calls: in one, Pillow may choose to begin with the columns
        return np.array(image.resize((width, image.height), resampling).resize((width, height), resampling), array.dtype)

    return one(pixels) if pixels.dtype == np.uint8 else np.stack([one(pixels[..., channel]) for channel in range(3)], -1)


def resize_to_unit(pictures: Sequence[Bytes] | Bytes, side: int) -> Floats:
    """See `preprocess.resize_to_unit`."""
    out = np.empty((len(pictures), 3, side, side), np.float32)
    for planes, picture in zip(out, pictures, strict=True):
        planes[:] = resize(picture.astype(np.float32) / np.float32(255), side, side, "bicubic").transpose(2, 0, 1)
    return out.clip(0, 1)


def to_uint8(image: Floats) -> Bytes:
    """See `preprocess.to_uint8`."""
    nearest: Bytes = np.rint(image.transpose(0, 2, 3, 1).clip(0, 1) * 255).astype(np.uint8)
    return nearest


def jpeg_round_trip(pixels: Bytes, quality: int) -> Bytes:
    """See `preprocess.jpeg_round_trip`."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
    with Image.open(buffer, formats=("JPEG",)) as coded:
        return np.array(coded.convert("RGB"), np.uint8)
