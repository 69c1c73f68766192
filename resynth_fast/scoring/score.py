"""From whitened points to scores and probabilities: how verdicts, races and evaluations call the score kernel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..kernels import similarity
from ..kernels.similarity import GalleryPrior, Scores
from ..types import Doubles, Integers
from .prior import Prior, no_gallery

PROBES_AT_ONCE = 64
"""Probes in one call of the kernel; their references are copied into one array."""


def score(
    points: Doubles, references: Sequence[Sequence[Doubles]], priors: Sequence[Prior] | None = None, within_trace: float = 1.0
) -> Scores:
    """How well each candidate explains each probe; see `kernels.similarity.score` for the formulas.

    Args:
        points: (P, n, d) whitened, n points of each of P probes: the picture and its perturbed copies.
        references: for each probe, C arrays (K, d) of whitened references; some may be empty, not all.
        priors: the prior of each probe; by default nothing is known of the candidates but their references.
        within_trace: trace of the whitened covariance within cells.

    Returns:
        Scores (P, n, C), higher is closer, and consistency (P, n), low for a picture that no candidate makes.
    """
    priors = priors or [no_gallery(len(references[0]), points.shape[2])] * len(points)
    parts = []
    for first in range(0, len(points), PROBES_AT_ONCE):
        chunk = slice(first, first + PROBES_AT_ONCE)
        groups = [group for candidates in references[chunk] for group in candidates]
        pool, offsets = np.concatenate(groups), np.cumsum([0, *map(len, groups)])
        parts.append(score_rows(points[chunk], pool, np.arange(len(pool)), offsets, priors[chunk], within_trace))
    return Scores(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def score_rows(
    points: Doubles,
    references: Doubles,
    rows: Integers,
    offsets: Integers,
    priors: Sequence[Prior],
    within_trace: float,
    content: Doubles | None = None,
) -> Scores:
    """As `score`, with references that are `rows` of one array; arguments as of `kernels.similarity.score`."""
    return similarity.score(np.ascontiguousarray(points), references, rows, offsets, _stacked(priors), within_trace, content=content)


def _stacked(priors: Sequence[Prior]) -> GalleryPrior:
    """The priors of the probes as arrays; a single row if all probes share one prior."""
    distinct = priors[:1] if all(prior is priors[0] for prior in priors) else priors
    means = np.stack([prior.means for prior in distinct]) if any(prior.prompts.any() for prior in distinct) else None
    weights, spreads = (np.stack(rows) for rows in ([p.weights for p in distinct], [p.variance for p in distinct]))
    return GalleryPrior(means, weights, spreads, np.array([prior.unknown for prior in distinct]))


def probabilities(values: Doubles, temperature: float) -> Doubles:
    """softmax(temperature · scores) over candidates (C,)."""
    odds: Doubles = np.exp(temperature * (values - values.max()))
    probability: Doubles = odds / odds.sum()
    return probability


def fit_temperature(rows: Sequence[Doubles], truth: Sequence[int]) -> float:
    """The temperature with the least negative log-likelihood on labelled probes, to two digits, by a grid."""
    grid = np.geomspace(1e-3, 1e4, 421)
    table = np.stack(rows)
    table = table - table.max(1, keepdims=True)
    own = table[np.arange(len(table)), np.asarray(truth)]
    losses = [float((np.log(np.exp(t * table).sum(1)) - t * own).mean()) for t in grid]
    return float(f"{grid[int(np.argmin(losses))]:.2g}")
