"""Scores to a three-way answer: attributed, inconclusive, or none of the candidates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .errors import BundleError
from .extractors.space import Calibration
from .recipe import Doubles, probabilities, scores
from .similarity import similarity
from .types import Status

ATTRIBUTED_FROM = 0.5
"""The least probability of an attributed candidate: it must be likelier than all the others together."""
CREDIBLE = 0.9


@dataclass(frozen=True, slots=True)
class Decision:
    """The verdict's numbers; candidates by their index."""

    status: Status
    order: tuple[int, ...]
    scores: Doubles
    probabilities: Doubles
    margin: float
    consistency: float
    credible: tuple[int, ...]
    flips: int


def decide(probe: Doubles, perturbed: Sequence[Doubles], references: Sequence[Doubles], calibration: Calibration) -> Decision:
    """Judge a probe (d,) by C candidates' references, each (K, d), all projected.

    `perturbed` are mildly changed copies of the probe: where most of them point elsewhere the answer is inconclusive.
    """
    values = scores(probe, references)
    if not np.isfinite(values).all():
        raise BundleError("a score is not finite; verify the bundles (resynth candidates list --verify)")
    probability = probabilities(values, calibration.temperature)
    order = np.argsort(-probability, kind="stable")
    first = int(order[0])
    flips = sum(int(scores(copy, references).argmax()) != first for copy in perturbed)
    consistency = _consistency(probe, references)
    status: Status
    if consistency < calibration.unknown_below:
        status = "unknown"
    elif probability[first] < ATTRIBUTED_FROM or 2 * flips > len(perturbed):
        status = "inconclusive"
    else:
        status = "attributed"
    margin = float(probability[first] - probability[order[1]]) if len(order) > 1 else 1.0
    held = np.cumsum(probability[order]) - probability[order] < CREDIBLE
    return Decision(status, tuple(map(int, order)), values, probability, margin, consistency, tuple(map(int, order[held])), flips)


def _consistency(probe: Doubles, references: Sequence[Doubles]) -> float:
    """The highest cosine of the probe with a candidate's mean reference, content not removed."""
    means = np.stack([r.mean(0) for r in references]).astype(np.float32)
    result = similarity(probe.astype(np.float32)[None], means, np.arange(len(means) + 1, dtype=np.int64))
    return float(result.scores.max())
