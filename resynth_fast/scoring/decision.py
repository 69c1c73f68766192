"""Scores to a three-way answer: attributed, inconclusive, or none of the candidates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..arrays import Doubles
from ..errors import BundleError
from ..types import Status
from .calibration import CalibrationPoint
from .prior import Prior
from .score import consistency, probabilities, scores

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


def decide(
    probes: Sequence[Doubles],
    perturbed: Sequence[Sequence[Doubles]],
    references: Sequence[Sequence[Doubles]],
    known: Sequence[Prior],
    calibration: CalibrationPoint,
    within_trace: float,
) -> Decision:
    """Judge pictures by one generator, whose own points (d,) are `probes`, by candidates' references, all whitened.

    `references` has, for each probe, C arrays (K, d), `known` what a gallery says; `perturbed` has, for each probe, its
    mildly changed copies: where most of them point elsewhere the answer is inconclusive. Several probes are declared to
    come from one source: their log-likelihoods add up.
    """

    def judge(points: Sequence[Doubles]) -> Doubles:
        total: Doubles = np.sum([scores(p, r, k, within_trace) for p, r, k in zip(points, references, known, strict=True)], axis=0)
        return total

    values = judge(probes)
    if not np.isfinite(values).all():
        raise BundleError("a score is not finite; verify the bundles (resynth candidates list --verify)")
    probability = probabilities(values, calibration.temperature)
    order = np.argsort(-probability, kind="stable")
    first = int(order[0])
    copies = list(zip(*perturbed, strict=True))
    flips = sum(int(judge(copy).argmax()) != first for copy in copies)
    mean_consistency = float(np.mean([consistency(p, r, k, within_trace) for p, r, k in zip(probes, references, known, strict=True)]))
    status: Status
    if mean_consistency < calibration.unknown_below:
        status = "unknown"
    elif probability[first] < ATTRIBUTED_FROM or 2 * flips > len(copies):
        status = "inconclusive"
    else:
        status = "attributed"
    margin = float(probability[first] - probability[order[1]]) if len(order) > 1 else 1.0
    held = np.cumsum(probability[order]) - probability[order] < CREDIBLE
    return Decision(status, tuple(map(int, order)), values, probability, margin, mean_consistency, tuple(map(int, order[held])), flips)
