"""Whether all values of an array are finite. The public face of the finite kernel."""

from __future__ import annotations

import numpy as np

from .. import kernels
from ..types import Floats
from .twins import finite as twin

_FLOAT = np.dtype(np.float32)


def all_finite(values: Floats) -> bool:
    """Whether no element of `values` (…) float32 is NaN or infinite: one pass, no array of flags.

    TypeError for another dtype.
    """
    if values.dtype != _FLOAT:
        raise TypeError(f"values is a {values.dtype} array; it must be float32")
    if not kernels.compiled():
        return twin.all_finite(values)
    faults = np.zeros(1, np.int32)
    kernels.native.faults(np.ascontiguousarray(values), faults)
    return not faults[0]
