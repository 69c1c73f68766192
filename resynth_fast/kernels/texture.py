"""The weightless descriptor of pictures. The public face of the texture kernel."""

from __future__ import annotations

import numpy as np

from .. import kernels
from ..types import Bytes, Floats
from .twins import texture as twin


def textures(pictures: Bytes, dimension: int) -> Floats:
    """(n, S, S, 3) uint8 sRGB → (n, dimension) float32; S is a multiple of 8 in 32 … 4096.

    `TextureExtractor` gives the dimension for a side.
    """
    features = np.empty((len(pictures), dimension), np.float32)
    if kernels.compiled():
        kernels.native.texture(np.ascontiguousarray(pictures), features)
    else:
        for row, pixels in zip(features, pictures, strict=True):
            np.concatenate(list(twin.describe(pixels).values()), out=row)
    return features
