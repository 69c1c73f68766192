"""The nearest rows of a gallery, exactly. The public face of the topk kernel."""

from __future__ import annotations

import operator

import numpy as np
from numpy.typing import NDArray

from . import similarity, twins
from .twins import Metric, TopK

if similarity.compiled():
    import resynth_fast.kernels._native as _native

_FLOAT, _INT = np.dtype(np.float32), np.dtype(np.int64)

__all__ = ["Metric", "TopK", "as_bfloat16", "topk"]


def topk(queries: NDArray[np.float32], gallery: NDArray[np.float32] | NDArray[np.uint16], k: int, *, metric: Metric = "cosine") -> TopK:
    """The k rows of the gallery with the highest inner product or cosine, for each query; a lower index first on a tie.

    One pass over the gallery for every 64 queries, on the calling thread, other Python threads running; nothing is
    copied, so the gallery may be a memory-mapped file larger than memory. A query's scores do not depend on the
    other queries, bit for bit. A zero vector has cosine 0 with everything.

    Args:
        queries: (Q, d) float32, Q and d at least 1; need not be normalised.
        gallery: (N, d) float32, or bfloat16 as the uint16 that :func:`as_bfloat16` makes: half the memory, and so
            about half the time; its rounding moves a cosine by up to 4e-3.
        k: at least 1; a gallery of fewer rows gives all of them.
        metric: "dot" or "cosine".

    Returns:
        Scores and indices, (Q, min(k, N)) each.

    Raises:
        TypeError: an argument is not a C-contiguous NumPy array of its dtype and dimensions; nothing is converted.
        ValueError: shapes do not fit together, k or metric is not allowed, a row holds NaN or an infinity, or an
            inner product exceeds float32.
    """
    if not similarity.compiled():
        return twins.topk(queries, gallery, k, metric=metric)
    try:
        k = operator.index(k)
        if k < 1:
            raise ValueError(f"k is {k}; it must be at least 1")
        shape = len(queries), min(k, len(gallery))
        scores, indices = np.empty(shape, _FLOAT), np.empty(shape, _INT)
        _native.topk(queries, gallery, metric, scores, indices)
    except TypeError:  # nanobind's lists every argument; this names the one at fault
        twins.check_topk(queries, gallery, k, metric)
        raise
    return TopK(scores, indices)


def as_bfloat16(rows: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Float32 rounded to the nearest bfloat16, ties to even, as its bits; an overflow becomes an infinity, a NaN stays one."""
    bits = np.ascontiguousarray(rows, np.float32).view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    quiet = bits | np.uint32(0x400000)
    return (np.where(np.isnan(rows), quiet, rounded) >> np.uint32(16)).astype(np.uint16)
