"""Calibration of a score on pictures whose generator is known: temperature and threshold by number of references and steps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from ..scoring.calibration import CalibrationPoint
from ..scoring.score import fit_temperature
from ..scoring.whitening import Constants
from ..types import Doubles
from .config import EvaluationConfig
from .dataset import DatasetFeatures
from .protocols import ProtocolRunner

PROMPTS_TO_CALIBRATE = 5
"""Minimum number of prompts of a dataset that a score is calibrated on."""
FALSE_UNKNOWNS = 0.05
"""Share of the candidates' own pictures that the threshold calls unknown."""


def point(
    references: int, steps: int, scores: Sequence[Doubles] | Doubles, consistency: Sequence[float] | Doubles, truth: Iterable[int]
) -> CalibrationPoint:
    """Temperature and threshold for scores (m, C) and consistencies (m,) of probes by the candidates `truth` (m,)."""
    temperature = fit_temperature(list(scores), [int(t) for t in truth])
    return CalibrationPoint(references, steps, temperature, float(np.quantile(consistency, FALSE_UNKNOWNS)))


def on_dataset(
    data: DatasetFeatures, constants: Constants, block_sizes: Sequence[int], recipe: str, references: Iterable[int]
) -> tuple[CalibrationPoint, ...]:
    """One point for each number in `references`: every picture is judged by `recipe`, its references drawn twice from its own prompt.

    `block_sizes`: columns of each tap of the features.
    """
    points = []
    for count in references:
        config = EvaluationConfig(recipe=recipe, references=count, draws=2)
        judged = ProtocolRunner(data, constants, block_sizes, config).judge()
        points.append(point(count, 0, judged.scores, judged.consistency, judged.truth))
    return tuple(points)
