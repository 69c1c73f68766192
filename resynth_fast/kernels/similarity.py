"""The scores of candidates for a probe. The public functions of the similarity kernels.

`similarity` is the paper's score, the cosine with the nearest reference. `score` is the log-likelihood that attribution uses.
"""

import numpy as np

from .. import kernels
from ..types import Doubles, Floats, Integers
from .twins import similarity as twin
from .twins.similarity import GalleryPrior, Reduce, Scores, Similarity

# Created once: a call takes about two microseconds, and converting a type to a dtype takes 0.1 of one.
_FLOAT, _DOUBLE, _INT = np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.int64)

__all__ = ["GalleryPrior", "Reduce", "Scores", "Similarity", "score", "similarity"]


def similarity(probes: Floats, references: Floats, offsets: Integers, *, reduce: Reduce = "max") -> Similarity:
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
    if not kernels.compiled():
        return twin.similarity(probes, references, offsets, reduce=reduce)
    try:
        count = len(probes)
        candidates = (len(offsets) - 1) // (count or 1) if len(offsets) else 0  # the kernel checks that they fit together
        scores, best, margin = np.empty((count, candidates), _FLOAT), np.empty(count, _INT), np.empty(count, _FLOAT)
        kernels.native.similarity(probes, references, offsets, reduce, scores, best, margin)
    except TypeError:  # nanobind's message lists every argument; this check names the wrong one
        twin.check_similarity(probes, references, offsets, reduce)
        raise
    return Similarity(scores, best, margin)


def score(
    points: Doubles,
    references: Doubles,
    rows: Integers,
    offsets: Integers,
    prior: GalleryPrior,
    energy: float,
    *,
    content: Doubles | None = None,
) -> Scores:
    """Log-likelihood of each probe under each candidate, and consistency of the probe with any candidate. Vectors are whitened.

    The references serve twice. Their mean over candidates estimates the content, which is subtracted. A candidate's own
    mean m is where its next picture should lie, as far as the prior leaves room for it:

        centre = content + w μ − mean over candidates of w μ            μ, w: `prior.means` and `prior.weights`
        gain = s K / (s K + 1)                                          s: `prior.spreads`, K: number of references
        posterior = centre + gain (m − centre), variance v = 1 + s (1 − gain)
        score = −|q − posterior|² / (energy · v) − log v

    The term log v keeps the number of references from favouring or penalising a candidate. A candidate without references
    is judged by the prior alone.

    Consistency is the highest cosine of the point with a mean reference, content not removed. With two references or
    more, half of their mean cosine with the other references of their candidate is subtracted, because captions differ in
    how much they determine a picture. If `prior.advantage` is a > 0, `content` is None and there are two candidates or
    more, a times the highest cosine of q − content with posterior − content is added. What no candidate explains of a probe
    (content, degradation, another generator's offset) is nearly orthogonal to all of them, and lowers this cosine alike.

    A probe's result does not depend on the other probes or on the instruction set, bit for bit. A value that is not
    finite gives NaN.

    Args:
        points: (P, n, d) float64, n points of each of P probes (the picture and its perturbed copies).
        references: (N, d) float64.
        rows: (R,) int64, rows of `references`; a row may serve several probes.
        offsets: (P * C + 1,) int64, from 0, non-decreasing, to R. Probe p's references of candidate c are
            rows[offsets[g]] … rows[offsets[g + 1] - 1] with g = p * C + c; a group may be empty.
        prior: what a gallery expects of the candidates.
        energy: variance of pictures within a cell, summed over the d columns.
        content: (P, d) float64, replaces the content estimated from references; a probe without references needs it.

    Returns:
        Scores (P, n, C) and consistency (P, n).

    Raises:
        TypeError: an argument is not a C-contiguous NumPy array of its dtype and dimensions; nothing is converted.
        ValueError: shapes, rows or offsets do not fit together, or a probe has neither references nor content.
    """
    if not kernels.compiled():
        return twin.score(points, references, rows, offsets, prior, energy, content=content)
    probes, copies = points.shape[:2]
    candidates = (len(offsets) - 1) // (probes or 1) if len(offsets) else 0  # the kernel checks that they fit together
    result = Scores(np.empty((probes, copies, candidates), _DOUBLE), np.empty((probes, copies), _DOUBLE))
    kernels.native.score(points, references, rows, offsets, content, *prior, energy, *result)
    return result
