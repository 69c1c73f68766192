"""Whether all values of an array are finite. The public face of the finite kernel."""

from __future__ import annotations

import numpy as np

from ..arrays import Floats
from . import twins

# Only absence falls back. An extension that is there and does not load is a fault, and its ImportError says which.
try:
    import resynth_fast.kernels._native as _native

    _compiled = True
except ModuleNotFoundError:
    _compiled = False


def all_finite(values: Floats) -> bool:
    """Whether no element of `values` (…) float32 is NaN or infinite: one pass, no array of flags.

    TypeError for another dtype.
    """
    if values.dtype != np.float32:
        raise TypeError(f"values is a {values.dtype} array; it must be float32")
    if not _compiled:
        return twins.all_finite(values)
    faults = np.zeros(1, np.int32)
    _native.faults(np.ascontiguousarray(values), faults)
    return not faults.any()
