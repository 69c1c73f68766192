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
Guidance = Sequence[Sequence[Sequence[float]]]
"""For each probe, C rows: the guidance of each reference, as a multiple of the candidate's own."""


def score(
    points: Doubles,
    references: Sequence[Sequence[Doubles]],
    priors: Sequence[Prior] | None = None,
    within_trace: float = 1.0,
    guidance: Guidance | None = None,
) -> Scores:
    """How well each candidate explains each probe; see `kernels.similarity.score` for the formulas.

    References of several guidance scales are scored in two parts, see `score_parts`; each candidate has the score of the part that
    explains the probe better, and a probe has the higher consistency.

    Args:
        points: (P, n, d) whitened, n points of each of P probes: the picture and its perturbed copies.
        references: for each probe, C arrays (K, d) of whitened references; some may be empty, not all.
        priors: the prior of each probe; by default nothing is known of the candidates but their references.
        within_trace: trace of the whitened covariance within cells.
        guidance: for each probe, C rows (K,) with the guidance of each reference as a multiple of the candidate's own; None: 1.

    Returns:
        Scores (P, n, C), higher is closer, and consistency (P, n), low for a picture that no candidate makes.
    """
    return best(score_parts(points, references, priors, within_trace, guidance))


def score_parts(
    points: Doubles,
    references: Sequence[Sequence[Doubles]],
    priors: Sequence[Prior] | None = None,
    within_trace: float = 1.0,
    guidance: Guidance | None = None,
) -> list[Scores]:
    """Scores by the references of at most a candidate's own guidance, then by those of at least its own; arguments as of `score`.

    One part if all references have the own one. Pictures of one candidate differ with the guidance more than twin candidates do, so
    content and means are those of one part; both parts hold the pictures of the own guidance, which lie between.
    """
    if guidance is None or all(set(row) <= {1} for rows in guidance for row in rows):
        return [_score(points, references, priors, within_trace)]
    return [
        _score(points, [list(map(side, *rows)) for rows in zip(references, guidance, strict=True)], priors, within_trace)
        for side in (_weaker, _stronger)
    ]


def best(parts: Sequence[Scores]) -> Scores:
    """The better part's score (P, n, C) of each candidate, and the higher consistency (P, n)."""
    return Scores(*(np.max(values, axis=0) for values in zip(*parts, strict=True)))


def best_guidance(parts: Sequence[Scores]) -> tuple[str, ...]:
    """For each of C candidates, the part that explains the probes better, "weaker" or "stronger"; "" where none does."""
    weaker, stronger = (part.scores[:, 0].sum(0) for part in (parts[0], parts[-1]))
    return tuple("weaker" if a > b else "stronger" if b > a else "" for a, b in zip(weaker, stronger, strict=True))


def _weaker(references: Doubles, guidance: Sequence[float]) -> Doubles:
    """References of at most the candidate's own guidance; all if there are none."""
    kept = np.asarray(guidance) <= 1
    return references[kept] if kept.any() else references


def _stronger(references: Doubles, guidance: Sequence[float]) -> Doubles:
    """References of at least the candidate's own guidance; all if there are none."""
    kept = np.asarray(guidance) >= 1
    return references[kept] if kept.any() else references


def _score(points: Doubles, references: Sequence[Sequence[Doubles]], priors: Sequence[Prior] | None, within_trace: float) -> Scores:
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
    return GalleryPrior(means, weights, spreads, np.array([prior.advantage for prior in distinct]))


def probabilities(values: Doubles, temperature: float) -> Doubles:
    """softmax(temperature · scores) over candidates (C,)."""
    odds: Doubles = np.exp(temperature * (values - values.max()))
    probability: Doubles = odds / odds.sum()
    return probability


def fit_temperature(rows: Sequence[Doubles], truth: Sequence[int]) -> float:
    """The temperature with the least negative log-likelihood on n labelled probes, to two digits, by a grid.

    One of n + 2 probes is taken to be another candidate's (Platt 1999), since n probes that are all told apart would allow any certainty.
    """
    grid = np.geomspace(1e-3, 1e4, 421)
    table = np.stack(rows)
    table = table - table.max(1, keepdims=True)
    own = table[np.arange(len(table)), np.asarray(truth)]
    doubt, candidates = 1 / (len(table) + 2), table.shape[1]
    likely = own if candidates < 2 else (1 - doubt) * own + doubt * (table.sum(1) - own) / (candidates - 1)
    losses = [float((np.log(np.exp(t * table).sum(1)) - t * likely).mean()) for t in grid]
    return float(f"{grid[int(np.argmin(losses))]:.2g}")
