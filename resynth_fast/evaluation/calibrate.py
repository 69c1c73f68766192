"""Calibration of a score on pictures whose generator is known: temperature and threshold by number of references and steps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..scoring.calibration import CalibrationPoint, fit_point
from ..scoring.whitening import Constants
from .config import EvaluationConfig
from .dataset import DatasetFeatures
from .protocols import ProtocolRunner

PROMPTS_TO_CALIBRATE = 5
"""Minimum number of prompts of a dataset that a score is calibrated on."""


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
        points.append(fit_point(count, 0, judged.scores, judged.consistency, judged.truth))
    return tuple(points)
