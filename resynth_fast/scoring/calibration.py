"""Temperatures and thresholds that turn scores into probabilities and statuses, by number of references and steps. Pure, float64."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from ..errors import BundleError
from ..types import Doubles
from .score import fit_temperature, probabilities

DEFAULT_TEMPERATURE = 4.5
"""Temperature of an extractor that was never calibrated, measured with middle layers of CLIP ViT-B/16 and 1, 2 and 4 references (3.5 … 5).

Other extractors have other temperatures (the zoo's descriptor without weights 1 … 1.4), so only the probabilities of a
calibrated extractor are reliable."""
FALSE_UNKNOWNS = 0.05
"""Share of the candidates' own pictures that the threshold calls unknown."""
FALSE_NAMES = 0.05
"""Share of calibration probes, at most, for which a candidate is named that is not their source."""
ATTRIBUTED_FROM = 0.5
"""Least probability at which a candidate may be named: it must be likelier than all others together."""
NEVER = 2.0
"""A threshold that no probability and no consistency reaches."""
NO_THRESHOLD = -1.0
"""A threshold of the consistency that is no threshold."""


@dataclass(frozen=True, slots=True)
class CalibrationPoint:
    """Temperature and threshold for one number of references and of denoising steps."""

    references: int
    steps: int
    """0: the references are pictures of a dataset or a gallery."""
    temperature: float
    unknown_below: float
    """Consistency below which a picture is called unknown: 5 % of the candidates' own pictures are below it."""
    attributed_from: float = ATTRIBUTED_FROM
    """Least probability of a named candidate, from 0.5; above 1 none is ever named."""
    consistent_from: float = NO_THRESHOLD
    """Least consistency of a named candidate: few pictures by another source reach it."""

    def __post_init__(self) -> None:
        numbers = (self.temperature, self.unknown_below, self.attributed_from, self.consistent_from)
        if not all(map(math.isfinite, numbers)) or self.temperature <= 0 or self.attributed_from < ATTRIBUTED_FROM:
            raise ValueError(f"numbers are {numbers}; all must be finite, the temperature above 0, attributed_from 0.5 or more")


@dataclass(frozen=True, slots=True)
class Calibration:
    """Calibration points, and a description of the pictures that they were measured on."""

    points: tuple[CalibrationPoint, ...]
    source: str
    measured: bool = True
    """False: the points are defaults, by which candidates are ranked and none is named."""
    candidates: tuple[str, ...] = ()
    """SHA-256 of each candidate that it was measured with; () where that is not known."""

    def at(self, references: int, steps: int) -> CalibrationPoint:
        """The nearest point: in references first, then in steps, both by ratio."""
        return min(self.points, key=lambda p: (_ratio(p.references, references), _ratio(p.steps, steps)))

    def holds_for(self, identities: Collection[str]) -> bool:
        """Whether it was measured with the candidates of these SHA-256, and perhaps with others: at least two of its own."""
        return self.measured and len(set(identities)) > 1 and set(identities) <= set(self.candidates)

    def elsewhere(self) -> Calibration:
        """Its temperatures for candidates that it was not measured with: they rank, no candidate is named and no picture is unknown."""
        points = tuple(replace(point, unknown_below=NO_THRESHOLD) for point in self.points)
        return Calibration(points, f"none for these candidates; temperatures: {self.source}", measured=False)

    def to_json(self) -> dict[str, Any]:
        points = [asdict(point) for point in self.points]
        return {"points": points, "source": self.source, "measured": self.measured, "candidates": list(self.candidates)}

    @classmethod
    def from_json(cls, entry: Mapping[str, Any], where: str) -> Calibration:
        """BundleError if a field is missing or out of range.

        Earlier versions did not write `measured` (there, points that call no picture unknown are the defaults) and `candidates`.
        """
        try:
            points = tuple(CalibrationPoint(**point) for point in entry["points"])
            measured = entry.get("measured", any(point.unknown_below > NO_THRESHOLD for point in points))
            candidates = tuple(entry.get("candidates", ()))
            if not points or not isinstance(measured, bool) or not all(isinstance(sha256, str) for sha256 in candidates):
                raise ValueError("there is no point, measured is neither true nor false, or a candidate is no hash")
            return cls(points, str(entry["source"]), measured, candidates)
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(f"{where}: calibration is broken ({error!r}); make it again") from error


UNCALIBRATED = Calibration(
    (CalibrationPoint(1, 0, DEFAULT_TEMPERATURE, NO_THRESHOLD),), "none: candidates are ranked, none is named", measured=False
)


def fit_point(
    references: int,
    steps: int,
    scores: Sequence[Doubles] | Doubles,
    consistency: Sequence[float] | Doubles,
    truth: Iterable[int],
    *,
    copies: int = 1,
) -> CalibrationPoint:
    """The point for scores (m, C) and consistencies (m,) of probes by the candidates `truth` (m,).

    Each probe stands in `copies` rows, itself first and then degraded copies of it: they count as one probe, whose error is their mean.
    A picture as inconsistent as a degraded copy is not yet unknown; one that is less consistent than clean probes is not named either,
    since it may as well be by another generator.

    Of m + 1 probes, the m given and the next, at most the share FALSE_NAMES is named wrongly if the next is counted as an error:
    conformal risk control (Angelopoulos, Bates, Fisch, Lei & Schuster, ICLR 2024). Fewer than 19 probes allow no candidate to be named.
    """
    labels = np.array([int(t) for t in truth])
    temperature = fit_temperature(list(scores), labels.tolist())
    unknown_below = float(np.quantile(consistency, FALSE_UNKNOWNS))
    consistent_from = float(np.quantile(consistency[::copies], FALSE_UNKNOWNS)) if copies > 1 else NO_THRESHOLD
    probability = np.stack([probabilities(row, temperature) for row in scores])
    wrong = (probability.argmax(1) != labels) & (np.asarray(consistency) >= max(unknown_below, consistent_from))
    highest = np.sort(probability.max(1)[wrong])[::-1]
    allowed = math.floor(copies * (FALSE_NAMES * (len(labels) // copies + 1) - 1) + 1e-9)
    if allowed < 0:
        threshold = NEVER
    else:  # just above the first probability at which there would be one error too many
        threshold = ATTRIBUTED_FROM if len(highest) <= allowed else max(ATTRIBUTED_FROM, float(np.nextafter(highest[allowed], NEVER)))
    return CalibrationPoint(references, steps, temperature, unknown_below, threshold, consistent_from)


def warnings(calibration: Calibration, references: int, steps: int) -> Sequence[str]:
    """A warning if no point was measured with these numbers of references and steps."""
    if not calibration.measured:
        return ("probabilities are not calibrated: they order the candidates, and say no more",)
    point = calibration.at(references, steps)
    if (point.references, point.steps or steps) == (references, steps):
        return ()
    calibrated = f"{point.references} references at {point.steps} steps"
    return (f"probabilities and thresholds were calibrated with {calibrated}, not with {references} at {steps}",)


def _ratio(a: int, b: int) -> float:
    return abs(math.log((a or b or 1) / (b or a or 1)))
