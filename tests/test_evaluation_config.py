"""Evaluation settings that contradict each other or the data set are refused."""

from dataclasses import replace
from typing import Any

import pytest
from gaussian_pictures import CONSTANTS, dataset_features, runner, world

from resynth_fast.errors import ConfigError
from resynth_fast.evaluation.config import EvaluationConfig
from resynth_fast.evaluation.dataset import DatasetFeatures
from resynth_fast.evaluation.protocols import ProtocolRunner


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"recipe": "magic"}, "--recipe is 'magic'; it must be default, one-shot"),
        ({"without": ("sleep",)}, "--without is 'sleep'"),
        ({"recipe": "one-shot", "without": ("own",)}, "'own', a step that recipe 'one-shot' does not have"),
        ({"recipe": "paper", "without": ("whitening",)}, "a step that recipe 'paper' does not have"),
        ({"without": ("scaling",)}, "needs --without whitening too"),
        ({"references": -1}, "references is -1"),
        ({"draws": 0}, "draws 0"),
        ({"seed": -1}, "--seed is -1"),
        ({"references": 0, "recipe": "one-shot"}, "has only its references"),
        ({"references": 0, "without": ("gallery",)}, "without a gallery has only its references"),
        ({"together": 3}, "--together is 3 with recipe 'default'"),
        ({"recipe": "layer", "leave_out": ("jpeg",)}, "recipe 'layer' has no nuisance"),
        ({"policy": "guess"}, "policy is 'guess'"),
        ({"policy": "aligned"}, "recipe one-shot"),
    ],
)
def test_settings_without_effect_or_out_of_range_are_refused(setting: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EvaluationConfig(**setting)


def test_an_extractor_without_the_layers_of_a_recipe_is_refused(gaussian_data: DatasetFeatures) -> None:
    with pytest.raises(ConfigError, match="needs the extractor's last layer"):
        runner(replace(gaussian_data, last=None), recipe="paper")
    with pytest.raises(ConfigError, match="compares one of several equal taps"):
        ProtocolRunner(gaussian_data, CONSTANTS, [16, 32], EvaluationConfig(recipe="layer"))
    with pytest.raises(ConfigError, match="'fog'; the extractor's nuisance constants have jpeg"):
        runner(gaussian_data, leave_out=("fog",))
    with pytest.raises(ConfigError, match="no probe has another picture"):
        runner(dataset_features(*world(0, copies=1)), recipe="one-shot").judge()
