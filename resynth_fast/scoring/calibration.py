"""Temperatures and thresholds that turn scores into probabilities and statuses, by number of references and steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import BundleError

DEFAULT_TEMPERATURE = 4.5
"""Temperature of an extractor that was never calibrated, measured with middle layers of CLIP ViT-B/16 and 1, 2 and 4 references (3.5 … 5).

Other extractors have other temperatures (the zoo's descriptor without weights 1 … 1.4), so only the probabilities of a
calibrated extractor are reliable."""


@dataclass(frozen=True, slots=True)
class CalibrationPoint:
    """Temperature and threshold for one number of references and of denoising steps."""

    references: int
    steps: int
    """0: the references are pictures of a dataset or a gallery."""
    temperature: float
    unknown_below: float
    """Consistency below which a picture is called unknown: 5 % of the candidates' own pictures are below it."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Calibration points, and a description of the pictures that they were measured on."""

    points: tuple[CalibrationPoint, ...]
    source: str

    def at(self, references: int, steps: int) -> CalibrationPoint:
        """The nearest point: in references first, then in steps, both by ratio."""
        return min(self.points, key=lambda p: (_ratio(p.references, references), _ratio(p.steps, steps)))

    def to_json(self) -> dict[str, Any]:
        return {"points": [asdict(point) for point in self.points], "source": self.source}

    @classmethod
    def from_json(cls, entry: Mapping[str, Any], where: str) -> Calibration:
        """BundleError if a field is missing or not finite."""
        try:
            points = tuple(CalibrationPoint(**point) for point in entry["points"])
            if not points or not all(math.isfinite(p.temperature) and p.temperature > 0 and math.isfinite(p.unknown_below) for p in points):
                raise ValueError("a temperature or a threshold is not finite, or there is none")
            return cls(points, str(entry["source"]))
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(f"{where}: calibration is broken ({error!r}); make it again") from error


UNCALIBRATED = Calibration((CalibrationPoint(1, 0, DEFAULT_TEMPERATURE, -1.0),), "none: stored default, no picture is called unknown")


def warnings(calibration: Calibration, references: int, steps: int) -> Sequence[str]:
    """A warning if no point was measured with these numbers of references and steps."""
    point = calibration.at(references, steps)
    if (point.references, point.steps or steps) == (references, steps):
        return ()
    calibrated = f"{point.references} references at {point.steps} steps"
    return (f"probabilities and thresholds were calibrated with {calibrated}, not with {references} at {steps}",)


def _ratio(a: int, b: int) -> float:
    return abs(math.log((a or b or 1) / (b or a or 1)))
