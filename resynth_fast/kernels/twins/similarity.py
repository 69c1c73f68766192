"""Twin of the similarity kernel: cosines reduced per candidate, and the score of the recipe."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np

from ...types import Doubles, Floats, Integers
from .checks import check_array, check_offsets

Reduce = Literal["max", "mean"]


class Similarity(NamedTuple):
    """Scores and ranking of P probes over C candidates."""

    scores: Floats
    """(P, C), in [-1, 1]; -inf for a candidate without references."""
    best: Integers
    """(P,), the candidate with the highest score, the lowest index on a tie; -1 for a probe without any reference."""
    margin: Floats
    """(P,), best score minus the next; +inf where no other candidate has references; 0 where `best` is -1."""


def similarity(probes: Floats, references: Floats, offsets: Integers, *, reduce: Reduce = "max") -> Similarity:
    """See :func:`resynth_fast.kernels.similarity.similarity`."""
    check_similarity(probes, references, offsets, reduce)
    count = len(probes)
    candidates = (len(offsets) - 1) // count
    scores = np.full(count * candidates, -np.inf)
    for group, (begin, end) in enumerate(pairwise(offsets)):
        if begin < end:
            cosines = _cosines(probes[group // candidates], references[begin:end])
            scores[group] = cosines.max() if reduce == "max" else cosines.mean()
    return _rank(scores.reshape(count, candidates).astype(np.float32))


def _cosines(probe: Floats, references: Floats) -> Doubles:
    """(d,), (k, d) → (k,); 0 where either vector is zero. Squares of any float32 fit into a float64."""
    x, y = probe.astype(np.float64), references.astype(np.float64)
    norms = np.linalg.norm(x) * np.linalg.norm(y, axis=1)
    cosines: Doubles = np.divide((y * x).sum(axis=1), norms, out=np.zeros(len(y)), where=norms > 0)
    return cosines.clip(-1.0, 1.0)


def _rank(scores: Floats) -> Similarity:
    best = scores.argmax(axis=1)
    first = scores[np.arange(len(scores)), best]
    others = scores.copy()
    others[np.arange(len(scores)), best] = -np.inf
    scored = first > -np.inf
    margin = np.subtract(first, others.max(axis=1), out=np.zeros_like(first), where=scored)
    return Similarity(scores, np.where(scored, best, -1), margin)


def check_similarity(probes: Floats, references: Floats, offsets: Integers, reduce: str) -> None:
    """Raise TypeError or ValueError, naming the argument, its value and what is allowed, unless they fit together."""
    for name, array, dtype, ndim in (
        ("probes", probes, np.float32, 2),
        ("references", references, np.float32, 2),
        ("offsets", offsets, np.int64, 1),
    ):
        check_array(name, array, dtype, ndim)
    (rows, dimension), groups = probes.shape, len(offsets) - 1
    if rows < 1 or dimension < 1:
        raise ValueError(f"probes has shape {probes.shape}; it must have at least one row and one column")
    if references.shape[1] != dimension:
        raise ValueError(f"references has {references.shape[1]} columns; it must have {dimension}, as probes has")
    if groups < 1 or groups % rows:
        raise ValueError(f"offsets has length {groups + 1}; it must be probes * candidates + 1, with {rows} probes")
    if reduce not in ("max", "mean"):
        raise ValueError(f"reduce is '{reduce}'; it must be 'max' or 'mean'")
    check_offsets(offsets, len(references))
    for name, array in (("probes", probes), ("references", references)):
        if len(bad := np.flatnonzero(~np.isfinite(array).all(axis=1))):
            raise ValueError(f"{name}: row {bad[0]} is not finite; every value must be")


class GalleryPrior(NamedTuple):
    """The gallery's prior for C candidates: one for each probe (G = P), or one for all probes (G = 1)."""

    means: Doubles | None
    """(G, C, d) whitened mean picture of each candidate, content removed; None: zero."""
    weights: Doubles
    """(G, C), how far a mean is trusted, 0 … 1."""
    spreads: Doubles
    """(G, C), variance of a candidate's pictures of one prompt about what is expected, in units of that within a cell."""
    advantage: Doubles
    """(G,), weight in the consistency of the cosine with a candidate's expected picture; 0 where a candidate is outside the gallery."""


class Scores(NamedTuple):
    """Scores of P probes with n points each, under C candidates."""

    scores: Doubles
    """(P, n, C), log-likelihoods but for a constant: higher is closer."""
    consistency: Doubles
    """(P, n), low for a picture that no candidate makes; NaN for a probe without references."""


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
    """See :func:`resynth_fast.kernels.similarity.score`."""
    candidates = (len(offsets) - 1) // len(points)
    result = Scores(np.empty((*points.shape[:2], candidates)), np.empty(points.shape[:2]))
    for p, own in enumerate(points):
        groups = [references[rows[begin:end]] for begin, end in pairwise(offsets[p * candidates : (p + 1) * candidates + 1])]
        g = p if len(prior.advantage) > 1 else 0
        expected = np.zeros((candidates, points.shape[2])) if prior.means is None else prior.means[g]
        own_prior = GalleryPrior(expected, prior.weights[g], prior.spreads[g], prior.advantage[g])
        for j, point in enumerate(own):
            centre = _content(groups) if content is None else content[p]
            posterior, variance = _posterior(groups, own_prior, centre)
            result.scores[p, j] = -((point - posterior) ** 2).sum(1) / (energy * variance) - np.log(variance)
            result.consistency[p, j] = _consistency(point, groups)
            if own_prior.advantage > 0 and content is None and candidates > 1:
                result.consistency[p, j] += own_prior.advantage * np.max([_cosine(row - centre, point - centre) for row in posterior])
    return result


Groups = Sequence[Doubles]
"""C arrays (K, d): each candidate's references of one probe."""


def _content(groups: Groups) -> Doubles:
    """The content that all candidates share: the mean over candidates of their mean references, (d,)."""
    content: Doubles = np.mean([r.mean(0) for r in groups if len(r)], axis=0)
    return content


def _posterior(groups: Groups, prior: GalleryPrior, content: Doubles) -> tuple[Doubles, Doubles]:
    """Each candidate's expected picture (C, d), and the variance of its pictures about it (C,)."""
    assert prior.means is not None  # `score` replaces None by zeros
    centre = prior.weights[:, None] * prior.means
    centre = content + centre - centre.mean(0)
    counts = np.array([len(r) for r in groups], np.float64)
    gain = prior.spreads * counts / (prior.spreads * counts + 1)  # spread / (spread + 1 / K)
    means = np.stack([r.mean(0) if len(r) else c for r, c in zip(groups, centre, strict=True)])
    posterior = centre + gain[:, None] * (means - centre)
    variance = 1 + prior.spreads * (1 - gain)
    return posterior, variance


def _consistency(point: Doubles, groups: Groups) -> float:
    """The highest cosine with a mean reference, less half of what the references have in common among themselves."""
    present = [r for r in groups if len(r)]
    if not present:
        return float("nan")
    highest = float(np.max([_cosine(r.mean(0), point) for r in present]))
    common = [_cosine(r.sum(0) - own, own) for r in present if len(r) > 1 for own in r]
    return highest - 0.5 * float(np.mean(common)) if common else highest


def _cosine(x: Doubles, y: Doubles) -> float:
    return float(x @ y / (np.linalg.norm(x) * np.linalg.norm(y) + 1e-300))
