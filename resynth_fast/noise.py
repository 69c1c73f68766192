"""Counter-based normals: a picture's noise depends on its own seed alone, never on its batch, probe or candidate.

Philox-4x32-10 (Salmon, Moraes, Dror & Shaw: Parallel random numbers: as easy as 1, 2, 3, SC 2011). Key: the seed.
Counter: (block of four elements, model call, 0, 0). Two uniforms make two normals (Box & Muller 1958) in float64,
rounded to float32.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

VERSION = 1

_MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_WEYL = 0x9E3779B9, 0xBB67AE85
_LOW, _SHIFT = np.uint64(0xFFFFFFFF), np.uint64(32)


def philox(seed: int, counters: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Philox-4x32-10 of counters (n, 4), each below 2³², under the 64-bit key `seed`; returns (n, 4), each below 2³²."""
    key = [seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF]
    c0, c1, c2, c3 = counters.T
    for _ in range(10):
        p0, p1 = _MULTIPLIERS[0] * c0, _MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (p1 >> _SHIFT) ^ c1 ^ np.uint64(key[0]), p1 & _LOW, (p0 >> _SHIFT) ^ c3 ^ np.uint64(key[1]), p0 & _LOW
        key = [(k + w) & 0xFFFFFFFF for k, w in zip(key, _WEYL, strict=True)]
    return np.stack([c0, c1, c2, c3], axis=1)


def normals(seed: int, call: int, shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """Standard normals of `shape` for model call `call` (0: the start of the walk) of the picture with `seed`."""
    count = int(np.prod(shape))
    counters = np.zeros(((count + 3) // 4, 4), np.uint64)
    counters[:, 0] = np.arange(len(counters))
    counters[:, 1] = call
    words = philox(seed, counters).astype(np.float64)
    radius = np.sqrt(-2 * np.log((words[:, 0::2] + 1) / 2**32))  # (0, 1]: the logarithm never sees zero
    angle = 2 * np.pi * words[:, 1::2] / 2**32
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=2).reshape(-1)[:count].reshape(shape).astype(np.float32)
