"""From whitened points to scores and probabilities: a Gaussian score on content-centred features. Pure, float64."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..arrays import Doubles
from .prior import BETWEEN, Prior, no_gallery


def scores(
    probe: Doubles, references: Sequence[Doubles], known: Prior | None = None, within_trace: float = 1.0, content: Doubles | None = None
) -> Doubles:
    """How well each candidate explains the probe: (d,) and C × (K, d), whitened → (C,), higher is closer.

    The references serve twice: their mean over candidates estimates the content, which is subtracted; and a
    candidate's own mean, where the gallery's prior leaves room for it, is where its pictures should lie. The score has
    the form of a log-likelihood: −|q − post|² / (within_trace · variance) − log variance. With one number of references and of
    gallery prompts for all candidates only the first term differs; where they differ, the second keeps a candidate with
    few references from being punished, or favoured, for it. A candidate without
    references is judged by the gallery alone. `content` (d,) is given where it is known otherwise.
    """
    known = known or no_gallery(len(references), len(probe))
    means = [r.mean(0) if len(r) else None for r in references]
    content = _content(references) if content is None else content
    posterior, variance = _posterior(means, content, references, known)
    distance: Doubles = ((probe - content - posterior) ** 2).sum(1)
    return -distance / (within_trace * variance) - np.log(variance)


def _content(references: Sequence[Doubles]) -> Doubles:
    """What the pictures show, whoever made them: the mean over candidates of their mean references."""
    content: Doubles = np.mean([r.mean(0) for r in references if len(r)], axis=0)
    return content


def _posterior(means: Sequence[Doubles | None], content: Doubles, references: Sequence[Doubles], known: Prior) -> tuple[Doubles, Doubles]:
    """Where each candidate's next picture lies, (C, d), and its variance (C,), in units of the variance within a cell."""
    certainty = known.prompts * BETWEEN
    centre = (certainty / (certainty + known.interaction + 1 / known.pictures_per_cell))[:, None] * known.means
    centre = centre - centre.mean(0)
    spread = known.variance
    counts = np.array([len(r) for r in references], np.float64)
    gain = spread * counts / (spread * counts + 1)  # spread / (spread + 1 / K)
    shifts = np.stack([np.zeros_like(content) if m is None else m - content - c for m, c in zip(means, centre, strict=True)])
    return centre + gain[:, None] * shifts, 1 + spread * (1 - gain)


def nearest(probe: Doubles, references: Sequence[Doubles]) -> Doubles:
    """The paper's score: the cosine with a candidate's nearest reference; (d,) and C × (K, d) → (C,)."""
    own = probe / np.linalg.norm(probe)
    return np.array([float((r @ own / np.linalg.norm(r, axis=1)).max()) for r in references])


def consistency(probe: Doubles, references: Sequence[Doubles], known: Prior | None = None, within_trace: float = 1.0) -> float:
    """How much a probe looks like a picture of one of the candidates; low for pictures that none of them makes.

    The highest cosine with a candidate's mean reference, content not removed. With two references or more, half of what
    the resyntheses have in common among themselves is subtracted: some captions leave more open than others. With a
    gallery that knows every candidate, twice the best candidate's advantage over an unknown generator is added.
    """
    present = [r for r in references if len(r)]
    means = np.stack([r.mean(0) for r in present])
    best = float((means @ probe / (np.linalg.norm(means, axis=1) * np.linalg.norm(probe) + 1e-300)).max())
    value = best - 0.5 * agreement(present)
    if known is not None and known.prompts.all():
        value += 2 * _advantage(probe, references, known, within_trace)
    return value


def agreement(references: Sequence[Doubles]) -> float:
    """Mean cosine of a reference with the mean of the others of its candidate; 0 where no candidate has two."""
    found: list[float] = []
    for r in references:
        if len(r) > 1:
            others = (r.sum(0) - r) / (len(r) - 1)
            lengths = np.linalg.norm(others, axis=1) * np.linalg.norm(r, axis=1) + 1e-300
            found += list((others * r).sum(1) / lengths)
    return float(np.mean(found)) if found else 0.0


def _advantage(probe: Doubles, references: Sequence[Doubles], known: Prior, within_trace: float) -> float:
    """How much better the best candidate explains the probe than an unknown generator would, whose mean has the prior's variance."""
    spread = 1 + BETWEEN + known.interaction
    background = -float(((probe - _content(references)) ** 2).sum()) / (within_trace * spread) - float(np.log(spread))
    best = float(scores(probe, references, known, within_trace).max())
    return (best - 0.75 * background) / 2


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
