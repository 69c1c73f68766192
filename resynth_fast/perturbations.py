"""Mild changes that a picture meets on its way: an answer that does not survive them is not one."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image

from .types import Pixels


def recompressed(pixels: Pixels) -> Pixels:
    """JPEG at quality 85 and back."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=85)
    with Image.open(buffer, formats=("JPEG",)) as coded:
        return np.array(coded.convert("RGB"))


def enlarged(pixels: Pixels) -> Pixels:
    """Half as large again, as a viewer or a platform would show it."""
    height, width = pixels.shape[:2]
    return np.array(Image.fromarray(pixels).resize((width * 3 // 2, height * 3 // 2), Image.Resampling.LANCZOS))


def trimmed(pixels: Pixels) -> Pixels:
    """A fiftieth cut off each side."""
    height, width = pixels.shape[:2]
    top, left = height // 50 or 1, width // 50 or 1
    return np.ascontiguousarray(pixels[top : height - top, left : width - left])


ALL: tuple[Callable[[Pixels], Pixels], ...] = (recompressed, enlarged, trimmed)
