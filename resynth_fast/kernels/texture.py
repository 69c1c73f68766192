"""The weightless descriptor of pictures. The public face of the texture kernel."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from . import texture_twin

# Only absence falls back. An extension that is there and does not load is a fault, and its ImportError says which.
try:
    import resynth_fast.kernels._native as _native

    _compiled = True
except ModuleNotFoundError:
    _compiled = False


def textures(pictures: npt.NDArray[np.uint8], dimension: int) -> npt.NDArray[np.float32]:
    """(n, S, S, 3) uint8 sRGB, S a multiple of 8 of 32 … 4096 → (n, dimension) float32; see `TextureExtractor`, which knows the dimension."""
    features = np.empty((len(pictures), dimension), np.float32)
    if _compiled:
        _native.texture(np.ascontiguousarray(pictures), features)
    else:
        for row, pixels in zip(features, pictures, strict=True):
            np.concatenate(list(texture_twin.describe(pixels).values()), out=row)
    return features
