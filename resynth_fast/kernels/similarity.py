"""Which candidate's references is a probe closest to? The public face of the similarity kernel."""

import numpy as np
from numpy.typing import NDArray

from . import twins
from .twins import Reduce, Similarity

# Only absence falls back. An extension that is there and does not load is a fault, and its ImportError says which.
try:
    import resynth_fast.kernels._native as _native

    _compiled = True
except ModuleNotFoundError:
    _compiled = False

# Made once: a call takes about two microseconds, and turning a type into a dtype a tenth of one.
_FLOAT, _INT = np.dtype(np.float32), np.dtype(np.int64)

__all__ = ["Reduce", "Similarity", "backend", "compiled", "similarity"]


def backend() -> str:
    """What computes: an instruction set ("avx512", "avx2", "serial"), or "reference" where no extension was built.

    The environment variable RESYNTH_ISA forces an instruction set.
    """
    return _native.isa() if _compiled else "reference"


def compiled() -> bool:
    """Whether the extension is there; else the twins of `reference` compute."""
    return _compiled


def similarity(
    probes: NDArray[np.float32], references: NDArray[np.float32], offsets: NDArray[np.int64], *, reduce: Reduce = "max"
) -> Similarity:
    """Cosine similarity of each probe with its own references, reduced per candidate and ranked.

    A zero vector has cosine 0 with everything. A probe's result does not depend on the other probes, bit for bit.

    Args:
        probes: (P, d) float32, P and d at least 1; need not be normalised.
        references: (N, d) float32, all groups one after another.
        offsets: (P * C + 1,) int64, from 0, non-decreasing, to N. Probe p's references of candidate c are the rows
            offsets[g] … offsets[g + 1] - 1 with g = p * C + c; a group may be empty.
        reduce: how a candidate's cosines become its score: "max" or "mean".

    Returns:
        Scores (P, C), best candidate (P,) and margin (P,).

    Raises:
        TypeError: an argument is not a C-contiguous NumPy array of its dtype and dimensions; nothing is converted.
        ValueError: shapes or offsets do not fit together, `reduce` is unknown, or a row holds NaN or an infinity.
    """
    if not _compiled:
        return twins.similarity(probes, references, offsets, reduce=reduce)
    try:
        count = len(probes)
        candidates = (len(offsets) - 1) // (count or 1) if len(offsets) else 0  # whether they fit is for the kernel to say
        scores, best, margin = np.empty((count, candidates), _FLOAT), np.empty(count, _INT), np.empty(count, _FLOAT)
        _native.similarity(probes, references, offsets, reduce, scores, best, margin)
    except TypeError:  # nanobind's lists every argument; this names the one at fault
        twins.check_similarity(probes, references, offsets, reduce)
        raise
    return Similarity(scores, best, margin)
