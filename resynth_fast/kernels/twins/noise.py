"""Twin of the noise kernel."""

import numpy as np
from numpy.typing import NDArray

from ...types import Floats


def philox(seeds: NDArray[np.uint64], counters: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Philox-4x32-10 of counters (n, 4), each below 2³², under the 64-bit keys `seeds` (n,); returns (n, 4), each below 2³²."""
    low, shift = np.uint64(0xFFFFFFFF), np.uint64(32)
    key0, key1 = seeds & low, seeds >> shift
    c0, c1, c2, c3 = counters.T
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
        c0, c1, c2, c3 = (p1 >> shift) ^ c1 ^ key0, p1 & low, (p0 >> shift) ^ c3 ^ key1, p0 & low
        key0, key1 = (key0 + np.uint64(0x9E3779B9)) & low, (key1 + np.uint64(0xBB67AE85)) & low
    return np.stack([c0, c1, c2, c3], axis=1)


def noise(seeds: NDArray[np.uint64], calls: NDArray[np.uint32], out: Floats) -> None:
    """Fill each row of `out` (b, n) with the normals of its seed and call; see :mod:`resynth_fast.kernels.noise`."""
    blocks = (out.shape[1] + 3) // 4
    counters = np.zeros((len(out), blocks, 4), np.uint64)
    counters[:, :, 0] = np.arange(blocks)
    counters[:, :, 1] = calls[:, None]
    integers = philox(seeds.repeat(blocks), counters.reshape(-1, 4)).astype(np.float64)
    radius = np.sqrt(-2 * np.log((integers[:, 0::2] + 1) / 2**32))  # (0, 1]: the logarithm never sees zero
    angle = 2 * np.pi * integers[:, 1::2] / 2**32
    normals = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=2)
    out[:] = normals.reshape(len(out), -1)[:, : out.shape[1]]
