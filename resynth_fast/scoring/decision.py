"""From scores to a three-way answer: attributed, inconclusive, or none of the candidates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import BundleError
from ..kernels.similarity import Scores
from ..types import Doubles, Integers, Status
from .calibration import ATTRIBUTED_FROM, CalibrationPoint
from .score import probabilities

CREDIBLE = 0.9
"""Probability that the credible set holds."""
TIE = 1e-9
"""Two candidates are tied if their scores differ by less than this part of the larger one: rounding decides between them."""
NOT_CALIBRATED = "The comparison is not calibrated: it ranks the candidates, and no error rate is known at which one could be named"


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
    reason: str
    """Why no candidate is named, as one sentence; "" if one is."""
    guidance: tuple[str, ...] = ()
    """For each candidate, whether the probe fits its references of weaker or of stronger guidance better; "" where they fit equally."""


def decide(judged: Scores, calibration: CalibrationPoint, *, measured: bool = True, identities: Sequence[str] = ()) -> Decision:
    """Decide from the scores (P, n, C) and consistencies (P, n) of P pictures by one generator.

    The first of a picture's n points is the picture, the others are its perturbed copies. If another candidate leads on most
    copies, the answer is inconclusive. Log-likelihoods of several pictures, which are declared to have one source, are
    added. `measured`: whether the calibration was measured; without one no candidate is named. `identities` (C,): candidates
    of the same identity are one source under several names, of which none is named. BundleError if a score is not finite.
    """
    values, *copies = judged.scores.sum(0)
    if not np.isfinite(values).all():
        raise BundleError("a score is not finite; verify the bundles (resynth candidates list --verify)")
    probability = probabilities(values, calibration.temperature)
    order = np.argsort(-probability, kind="stable")
    first = int(order[0])
    flips = sum(int(copy.argmax()) != first for copy in copies)
    consistency = float(judged.consistency[:, 0].mean())
    if unknown := measured and consistency < calibration.unknown_below:
        reason = (
            f"The consistency, {consistency:.2f}, is below {calibration.unknown_below:.2f}, "
            "which 95 % of the candidates' own pictures reach"
        )
    else:
        reason = _doubt(values, order, float(probability[first]), consistency, calibration, measured, identities)
        if not reason and 2 * flips > len(copies):
            reason = f"Another candidate comes first after {flips} of {len(copies)} mild changes of the picture"
    credible = order[np.cumsum(probability[order]) - probability[order] < CREDIBLE]
    return Decision(
        status="unknown" if unknown else "inconclusive" if reason else "attributed",
        order=tuple(map(int, order)),
        scores=values,
        probabilities=probability,
        margin=float(probability[first] - probability[order[1]]) if len(order) > 1 else 1.0,
        consistency=consistency,
        credible=tuple(map(int, credible)),
        flips=flips,
        reason=reason,
    )


def _doubt(
    values: Doubles,
    order: Integers,
    probability: float,
    consistency: float,
    point: CalibrationPoint,
    measured: bool,
    identities: Sequence[str],
) -> str:
    """Why the first candidate must not be named, whatever the perturbed copies say; "" if it may."""
    first = values[order[0]]
    if len(order) < 2:
        return "A single candidate cannot be compared with another one"
    if identities and identities.count(identities[order[0]]) > 1:
        return "The first candidate is given under two names"
    if first - values[order[1]] <= TIE * abs(first):
        return "The first two candidates explain the picture equally well"
    if not measured:
        return NOT_CALIBRATED
    if probability >= point.attributed_from:
        if consistency >= point.consistent_from:
            return ""
        return (
            f"The consistency, {consistency:.2f}, is below {point.consistent_from:.2f}: "
            "so low, a picture by a source that is not among the candidates is too likely"
        )
    if point.attributed_from > 1:
        return "On pictures of known source this comparison errs too often, however high the probability"
    if point.attributed_from > ATTRIBUTED_FROM:
        return (
            f"The probability of the first candidate, {probability:.3f}, is below {point.attributed_from:.3f}: "
            "on pictures of known source more than 5 % would be named wrongly"
        )
    return "No candidate is likelier than all others together"
