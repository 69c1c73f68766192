"""Counter-based normals: a picture's noise depends on its own seed alone, never on its batch, probe or candidate.

Philox-4x32-10 (Salmon, Moraes, Dror & Shaw: Parallel random numbers: as easy as 1, 2, 3, SC 2011). Key: the seed.
Counter: (block of four elements, model call, 0, 0). Two uniforms make two normals (Box & Muller 1958), in float32
operations that every processor and GPU rounds alike: the same bits on all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from .. import kernels
from ..types import Floats
from .twins import noise as twin

Word = TypeVar("Word", np.uint32, np.uint64)

VERSION = 2
"""Version of the noise; it changes whenever a bit of the noise does. 1: logarithm, sine and cosine of the platform's library,
in float64. 2: our own, in float32, within 4e-7 of the exact value. Without the extension, the float64 twin differs from the
kernel by as little."""


def normals(seed: int, call: int, shape: tuple[int, ...]) -> Floats:
    """Standard normals of `shape` for model call `call` (0: the start of the walk) of the picture with `seed`."""
    row: Floats = normal_rows([seed], [call], shape)[0]
    return row


def normal_rows(seeds: Sequence[int], calls: Sequence[int], shape: tuple[int, ...]) -> Floats:
    """Normals (b, *shape): row i is `normals(seeds[i], calls[i], shape)`, bit for bit; rows may be at different calls.

    ValueError if a seed is not in [0, 2⁶⁴), a call not in [0, 2³²), or the two differ in number.
    """
    keys, states = counters(seeds, calls)
    out = np.empty((len(keys), prod(shape)), np.float32)
    if kernels.compiled():
        kernels.native.noise(keys, states, out)
    else:
        twin.noise(keys, states, out)
    return out.reshape(len(keys), *shape)


def counters(seeds: Sequence[int], calls: Sequence[int]) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint32]]:
    """Seeds and calls as the arrays (b,) that the kernels take. Raises as `normal_rows`."""
    if len(seeds) != len(calls):
        raise ValueError(f"calls has length {len(calls)}; it must have {len(seeds)}, one for each of seeds")
    return _checked("seeds", seeds, np.uint64), _checked("calls", calls, np.uint32)


def _checked(name: str, values: Sequence[int], dtype: type[Word]) -> npt.NDArray[Word]:
    try:
        return np.array(values, dtype)
    except OverflowError:
        largest = int(np.iinfo(dtype).max)
        i, value = next((i, value) for i, value in enumerate(values) if not 0 <= value <= largest)
        raise ValueError(f"{name}[{i}] is {value}; it must be in 0 … {largest}") from None
