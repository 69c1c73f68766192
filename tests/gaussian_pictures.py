"""Made-up features of known structure, for tests of the evaluation protocols."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from resynth_fast.evaluation.config import EvaluationConfig
from resynth_fast.evaluation.dataset import Dataset, DatasetFeatures
from resynth_fast.evaluation.protocols import ProtocolRunner
from resynth_fast.scoring.whitening import fit_constants

D, TAPS = 48, [16, 16, 16]


def world(seed, generators=4, prompts=12, copies=4, spread=0.34, own=0.0, content=2.5):
    """Features with an offset for each generator, a strong content and anisotropic noise; the generator and prompt of each.

    `own`: standard deviation of an offset of each generator for each prompt.
    """
    rng = np.random.default_rng(seed)
    p, g, _ = (a.ravel() for a in np.meshgrid(range(prompts), range(generators), range(copies), indexing="ij"))
    loud = np.random.default_rng(99).normal(size=(6, D)) * 0.4  # the same directions in every world: noise is the extractor's
    x = rng.normal(size=(generators, D))[g] * spread + rng.normal(size=(prompts, D))[p] * content
    x += rng.normal(size=(generators, prompts, D))[g, p] * own + rng.normal(size=(len(g), D)) * 0.7 + rng.normal(size=(len(g), 6)) @ loud
    return x.astype(np.float32), g, p


def dataset_features(x, g, p, **changes):
    n = len(g)
    dataset = Dataset(
        files=tuple(Path(str(i)) for i in range(n)),
        generators=tuple(f"g{i}" for i in range(int(g.max()) + 1)),
        prompts=tuple(f"p{i}" for i in range(int(p.max()) + 1)),
        generator=g,
        prompt=p,
        group=p,
        probe=np.ones(n, bool),
        reference=np.ones(n, bool),
    )
    return DatasetFeatures(replace(dataset, **changes), x, x, 0.1)


def constants():
    """Constants fitted on generators that are no candidates; one family of degradations moves pictures along one axis."""
    x, g, p = world(100, generators=6, prompts=20)
    moved = np.zeros((40, D))
    moved[:, 3] = np.random.default_rng(1).normal(size=40) * 3
    return fit_constants(x, {"a": 16, "b": 16, "c": 16}, g, p, {"jpeg": moved})


CONSTANTS = constants()


@pytest.fixture(scope="session")
def gaussian_data():
    return dataset_features(*world(0))


def runner(gaussian_data, probes=None, spaces=None, **setting):
    return ProtocolRunner(gaussian_data, CONSTANTS, TAPS, EvaluationConfig(**{"draws": 2, **setting}), probes, spaces)


def accuracy(gaussian_data, **setting):
    judged = runner(gaussian_data, **setting).judge()
    return float((judged.scores.argmax(1) == judged.truth).mean())


def without(x, rows):
    """The features, with `rows` moved far away."""
    poisoned = x.copy()
    poisoned[rows] += 1e3 * np.random.default_rng(3).normal(size=(len(rows), x.shape[1])).astype(np.float32)
    return poisoned
