"""From scores to a three-way answer: attributed, inconclusive, or none of the candidates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import BundleError
from ..kernels.similarity import Scores
from ..types import Doubles, Status
from .calibration import CalibrationPoint
from .score import probabilities

ATTRIBUTED_FROM = 0.5
"""Minimum probability of an attributed candidate: it must be likelier than all others together."""
CREDIBLE = 0.9
"""Probability that the credible set holds."""


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


def decide(judged: Scores, calibration: CalibrationPoint) -> Decision:
    """Decide from the scores (P, n, C) and consistencies (P, n) of P pictures by one generator.

    The first of a picture's n points is the picture, the others are its perturbed copies. If another candidate leads on most
    copies, the answer is inconclusive. Log-likelihoods of several pictures, which are declared to have one source, are
    added. BundleError if a score is not finite.
    """
    values, *copies = judged.scores.sum(0)
    if not np.isfinite(values).all():
        raise BundleError("a score is not finite; verify the bundles (resynth candidates list --verify)")
    probability = probabilities(values, calibration.temperature)
    order = np.argsort(-probability, kind="stable")
    first = int(order[0])
    flips = sum(int(copy.argmax()) != first for copy in copies)
    consistency = float(judged.consistency[:, 0].mean())
    status: Status
    if consistency < calibration.unknown_below:
        status = "unknown"
    elif probability[first] < ATTRIBUTED_FROM or 2 * flips > len(copies):
        status = "inconclusive"
    else:
        status = "attributed"
    margin = float(probability[first] - probability[order[1]]) if len(order) > 1 else 1.0
    credible = np.cumsum(probability[order]) - probability[order] < CREDIBLE
    return Decision(status, tuple(map(int, order)), values, probability, margin, consistency, tuple(map(int, order[credible])), flips)
