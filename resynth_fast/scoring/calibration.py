"""What turns scores into probabilities and thresholds, by how much was made; measured once, on the pictures that `source` names."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import BundleError

DEFAULT_TEMPERATURE = 4.5
"""Of an extractor that was never calibrated: what middle layers of CLIP ViT-B/16 give with 1, 2 and 4 references (3.5 … 5).

Other extractors have others (the zoo's weightless descriptor 1 … 1.4): only a calibrated one gives probabilities to rely on."""


@dataclass(frozen=True, slots=True)
class CalibrationPoint:
    """Measured with so many references and denoising steps."""

    references: int
    steps: int
    """0: the references are given pictures."""
    temperature: float
    unknown_below: float
    """Consistency under which 5 % of the candidates' own pictures fall."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Points, and on what pictures they were measured."""

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
    """What to tell where the nearest point is not the asked-for one."""
    point = calibration.at(references, steps)
    if (point.references, point.steps or steps) == (references, steps):
        return ()
    made = f"{references} references at {steps} steps"
    return (f"probabilities and thresholds were calibrated with {point.references} references at {point.steps} steps, not with {made}",)


def _ratio(a: int, b: int) -> float:
    return abs(math.log((a or b or 1) / (b or a or 1)))
