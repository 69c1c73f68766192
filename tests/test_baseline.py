"""The baseline that knows only the size and codec of a picture."""

import numpy as np
import pytest

from resynth_fast.evaluation import baseline


def test_only_an_unfair_data_set_is_told_apart_by_size_and_codec() -> None:
    rng = np.random.default_rng(0)
    generator, group = np.tile(np.arange(3), 60), np.repeat(np.arange(20), 9)
    fair = np.concatenate([np.full((180, 2), 512.0), np.tile([1.0, 0, 0], (180, 1)), rng.normal(size=(180, 3))], axis=1)
    found = baseline.evaluate(fair, generator, group)
    assert found["balanced"] == pytest.approx(1 / 3, abs=0.15)
    assert found["normalised"] == pytest.approx(1 / 3, abs=0.15)
    sizes = fair.copy()
    sizes[:, 0] = np.where(generator == 1, 768, rng.choice([512, 1024], 180))  # no class mean tells these apart
    assert baseline.evaluate(sizes, generator, group)["balanced"] > 0.6
    same = np.ones((180, 8))
    assert baseline.evaluate(same, generator, group)["balanced"] == pytest.approx(1 / 3, abs=0.15)
    assert baseline.evaluate(fair, generator, np.zeros(180, int))["balanced"] is None
