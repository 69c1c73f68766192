"""Checks of arguments that several kernels share."""

import numpy as np

from ...types import Integers


def check_array(name: str, array: object, dtype: type[np.generic], ndim: int) -> None:
    """TypeError unless `array` is a C-contiguous NumPy array of `ndim` dimensions and of `dtype`."""
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{name} is a {type(array).__name__}; it must be a numpy.ndarray")
    if array.dtype != dtype or array.ndim != ndim or not array.flags.c_contiguous:
        order = "C-contiguous" if array.flags.c_contiguous else "strided"
        raise TypeError(
            f"{name} is a {order} {array.ndim}-D {array.dtype} array; it must be a C-contiguous {ndim}-D {np.dtype(dtype)} array"
        )


def check_offsets(offsets: Integers, count: int) -> None:
    """ValueError unless `offsets` begin at 0, never fall and end at `count`."""
    if offsets[0] != 0:
        raise ValueError(f"offsets[0] is {offsets[0]}; it must be 0")
    if len(falls := np.flatnonzero(np.diff(offsets) < 0)):
        g = falls[0]
        raise ValueError(f"offsets[{g + 1}] is {offsets[g + 1]}; it must be at least offsets[{g}] = {offsets[g]}")
    if offsets[-1] != count:
        raise ValueError(f"offsets[{len(offsets) - 1}] is {offsets[-1]}; it must be {count}, the number of references")
