"""Resampling, normalisation and JPEG round trips of pictures. The public functions of the preprocess kernels.

Where no extension was built Pillow computes the same: it is the arbiter of the kernels' tests.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .. import kernels
from ..types import Bytes, Floats
from .twins import preprocess as twin
from .twins.preprocess import Filter, Number

FILTERS: tuple[Filter, ...] = ("box", "bilinear", "bicubic", "lanczos")


def resize(pixels: npt.NDArray[Number], height: int, width: int, *, filter: Filter = "bicubic") -> npt.NDArray[Number]:
    """Antialiased resampling, along rows first: (H, W, 3) → (height, width, 3) of the same dtype.

    uint8 goes through Pillow's fixed-point arithmetic and its 8-bit intermediate, to the last bit; float32 is summed in
    double, as in Pillow's mode F. Raises TypeError for another dtype or rank, ValueError for another shape or filter.
    """
    _check(pixels, filter)
    _check_size(height, width)
    if not kernels.compiled():
        return twin.resize(pixels, height, width, filter)
    out = np.empty((height, width, 3), pixels.dtype)
    kernels.native.resize(_with_whole_rows(pixels), filter, out)
    return out


def resize_to_unit(pictures: Sequence[Bytes] | Bytes, side: int) -> Floats:
    """n squares (S, S, 3) uint8 → (n, 3, side, side) float32 in [0, 1], antialiased bicubic without an 8-bit intermediate."""
    if not kernels.compiled():
        return twin.resize_to_unit(pictures, side)
    out = np.empty((len(pictures), 3, side, side), np.float32)
    for planes, picture in zip(out, pictures, strict=True):
        kernels.native.fit(_with_whole_rows(picture), "bicubic", planes)
    return out


def to_uint8(image: Floats) -> Bytes:
    """(n, 3, H, W) finite float32 in [0, 1] → (n, H, W, 3) uint8: the nearest level, halves to even; other values are clipped."""
    if not kernels.compiled():
        return twin.to_uint8(image)
    count, _, height, width = image.shape
    out = np.empty((count, height, width, 3), np.uint8)
    kernels.native.levels(np.ascontiguousarray(image), out)
    return out


def jpeg_round_trip(pixels: Bytes, quality: int) -> Bytes:
    """Encode and decode (H, W, 3) uint8 as libjpeg does, at quality 1 … 100 with 4:2:0 chroma, without a file.

    Raises TypeError for another dtype or rank, ValueError for another shape or quality.
    """
    _check(pixels, "bicubic")
    if pixels.dtype != np.uint8:
        raise TypeError(f"pixels is a {pixels.dtype} array; it must be uint8")
    if not 1 <= quality <= 100:
        raise ValueError(f"quality is {quality}; it must be 1 … 100")
    if not kernels.compiled():
        return twin.jpeg_round_trip(pixels, quality)
    out = np.empty_like(pixels, order="C", subok=False)
    kernels.native.jpeg_round_trip(np.ascontiguousarray(pixels), quality, out)
    return out


def centre_square(pixels: npt.NDArray[Number], border: float = 0.0) -> npt.NDArray[Number]:
    """The largest centred square of (H, W, 3), less `border`, a fraction of its side, on each side; a view."""
    height, width = pixels.shape[:2]
    side = min(height, width)
    dropped = round(border * side)  # whole pixels: the crop itself must not resample
    top, left = (height - side) // 2 + dropped, (width - side) // 2 + dropped
    inner = side - 2 * dropped
    return pixels[top : top + inner, left : left + inner]


def _check(pixels: object, filter: str) -> None:
    if not isinstance(pixels, np.ndarray):
        raise TypeError(f"pixels is a {type(pixels).__name__}; it must be a numpy.ndarray")
    if pixels.dtype not in (np.uint8, np.float32) or pixels.ndim != 3:
        raise TypeError(f"pixels is a {pixels.ndim}-D {pixels.dtype} array; it must be a 3-D uint8 or float32 array")
    if pixels.shape[2] != 3 or 0 in pixels.shape:
        raise ValueError(f"pixels has shape {pixels.shape}; it must be (H, W, 3), H and W at least 1")
    if filter not in FILTERS:
        raise ValueError(f"filter is '{filter}'; it must be 'box', 'bilinear', 'bicubic' or 'lanczos'")


def _check_size(height: int, width: int) -> None:
    if height < 1 or width < 1:
        raise ValueError(f"size is {height} x {width}; sides must be at least 1 px")


def _with_whole_rows(pixels: npt.NDArray[Number]) -> npt.NDArray[Number]:
    """`pixels`, copied unless each row is contiguous. Rows may be any distance apart, as in a crop."""
    item = pixels.itemsize
    return pixels if pixels.strides[1:] == (3 * item, item) else np.ascontiguousarray(pixels)
