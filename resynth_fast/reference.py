"""Float64 NumPy twins of the compiled kernels: the arbiter of their tests, and the fallback where none is built.

Each takes the arguments of its kernel, checks them with the same words, and is written to be read, not to be fast.
"""

from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Reduce = Literal["max", "mean"]


class Similarity(NamedTuple):
    """Scores and ranking of P probes over C candidates."""

    scores: NDArray[np.float32]
    """(P, C), in [-1, 1]; -inf for a candidate without references."""
    best: NDArray[np.int64]
    """(P,), the candidate with the highest score, the lowest index on a tie; -1 for a probe without any reference."""
    margin: NDArray[np.float32]
    """(P,), best score minus the next; +inf where no other candidate has references; 0 where `best` is -1."""


def similarity(
    probes: NDArray[np.float32], references: NDArray[np.float32], offsets: NDArray[np.int64], *, reduce: Reduce = "max"
) -> Similarity:
    """See :func:`resynth_fast.similarity.similarity`."""
    check_similarity(probes, references, offsets, reduce)
    count = len(probes)
    candidates = (len(offsets) - 1) // count
    scores = np.full(count * candidates, -np.inf)
    for group, (begin, end) in enumerate(pairwise(offsets)):
        if begin < end:
            cosines = _cosines(probes[group // candidates], references[begin:end])
            scores[group] = cosines.max() if reduce == "max" else cosines.mean()
    return _rank(scores.reshape(count, candidates).astype(np.float32))


def _cosines(probe: NDArray[np.float32], references: NDArray[np.float32]) -> NDArray[np.float64]:
    """(d,), (k, d) → (k,); 0 where either vector is zero. Squares of any float32 fit into a float64."""
    x, y = probe.astype(np.float64), references.astype(np.float64)
    norms = np.linalg.norm(x) * np.linalg.norm(y, axis=1)
    cosines: NDArray[np.float64] = np.divide((y * x).sum(axis=1), norms, out=np.zeros(len(y)), where=norms > 0)
    return cosines.clip(-1.0, 1.0)


def _rank(scores: NDArray[np.float32]) -> Similarity:
    best = scores.argmax(axis=1)
    first = scores[np.arange(len(scores)), best]
    others = scores.copy()
    others[np.arange(len(scores)), best] = -np.inf
    scored = first > -np.inf
    margin = np.subtract(first, others.max(axis=1), out=np.zeros_like(first), where=scored)
    return Similarity(scores, np.where(scored, best, -1), margin)


def check_similarity(probes: NDArray[np.float32], references: NDArray[np.float32], offsets: NDArray[np.int64], reduce: str) -> None:
    """Raise TypeError or ValueError, naming the argument, its value and what is allowed, unless they fit together."""
    for name, array, dtype, ndim in (
        ("probes", probes, np.float32, 2),
        ("references", references, np.float32, 2),
        ("offsets", offsets, np.int64, 1),
    ):
        _check_array(name, array, dtype, ndim)
    (rows, dimension), groups = probes.shape, len(offsets) - 1
    if rows < 1 or dimension < 1:
        raise ValueError(f"probes has shape {probes.shape}; it must have at least one row and one column")
    if references.shape[1] != dimension:
        raise ValueError(f"references has {references.shape[1]} columns; it must have {dimension}, as probes has")
    if groups < 1 or groups % rows:
        raise ValueError(f"offsets has length {groups + 1}; it must be probes * candidates + 1, with {rows} probes")
    if reduce not in ("max", "mean"):
        raise ValueError(f"reduce is '{reduce}'; it must be 'max' or 'mean'")
    _check_offsets(offsets, len(references))
    for name, array in (("probes", probes), ("references", references)):
        if len(bad := np.flatnonzero(~np.isfinite(array).all(axis=1))):
            raise ValueError(f"{name}: row {bad[0]} is not finite; every value must be")


def _check_array(name: str, array: object, dtype: type[np.generic], ndim: int) -> None:
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{name} is a {type(array).__name__}; it must be a numpy.ndarray")
    if array.dtype != dtype or array.ndim != ndim or not array.flags.c_contiguous:
        order = "C-contiguous" if array.flags.c_contiguous else "strided"
        raise TypeError(
            f"{name} is a {order} {array.ndim}-D {array.dtype} array; it must be a C-contiguous {ndim}-D {np.dtype(dtype)} array"
        )


def _check_offsets(offsets: NDArray[np.int64], count: int) -> None:
    if offsets[0] != 0:
        raise ValueError(f"offsets[0] is {offsets[0]}; it must be 0")
    if len(falls := np.flatnonzero(np.diff(offsets) < 0)):
        g = falls[0]
        raise ValueError(f"offsets[{g + 1}] is {offsets[g + 1]}; it must be at least offsets[{g}] = {offsets[g]}")
    if offsets[-1] != count:
        raise ValueError(f"offsets[{len(offsets) - 1}] is {offsets[-1]}; it must be {count}, the number of references")
