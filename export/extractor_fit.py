"""Constants and calibration of an extractor, from labelled pictures of generators that need not be anybody's candidates."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from resynth_fast.candidates import ScheduledCandidate, find
from resynth_fast.engines.pool import EnginePool
from resynth_fast.evaluation import calibrate
from resynth_fast.evaluation.dataset import Dataset, describe, read
from resynth_fast.extractors.space import FeatureSpace
from resynth_fast.images import perturbations
from resynth_fast.scoring.calibration import UNCALIBRATED, Calibration
from resynth_fast.scoring.whitening import Constants, fit_constants

PICTURES = 1500
"""Pictures that the constants are fitted on, at most."""
DEGRADED = 96
"""Pictures that the nuisance constants are fitted on, at most."""
REFERENCES = (1, 2, 4)


def fit(unfitted: FeatureSpace, root: Path, cache: Path) -> tuple[Constants, Calibration, str]:
    """Constants, calibration and a sentence about what they were fitted on, from a dataset on disk."""
    dataset = _thinned(read(root), PICTURES)
    data = describe(dataset, unfitted, cache=cache)
    some = _thinned(data.dataset, DEGRADED)
    clean = describe(some, unfitted, cache=cache).features
    degraded = {
        family: np.concatenate([describe(some, unfitted, degradation=name, cache=cache).features - clean for name in names])
        for family, names in perturbations.NUISANCE.items()
    }
    dataset = data.dataset
    constants = fit_constants(data.features, unfitted.extractor.block_sizes, dataset.generator, dataset.prompt, degraded)
    text = f"{len(dataset)} pictures by {len(dataset.generators)} generators of {len(np.unique(dataset.group))} prompts, {root.name}"
    smallest = int(dataset.cell_sizes().min())
    if smallest < 2 or len(np.unique(dataset.group)) < calibrate.PROMPTS_TO_CALIBRATE:
        return constants, replace(UNCALIBRATED, source=f"{UNCALIBRATED.source}; {text} have too few of a cell or too few prompts"), text
    block_sizes = list(unfitted.extractor.block_sizes.values())
    points = calibrate.on_dataset(data, constants, block_sizes, "one-shot", [count for count in REFERENCES if count < smallest])
    return constants, Calibration(points, text), text


def zoo_pictures(folder: Path, prompts: int = 24, copies: int = 2) -> Path:
    """Pictures by the embedded zoo in the matrix layout: what is at hand where nothing else was given."""
    from .zoo.calibrate import captions

    pool = EnginePool(threads=1)
    for candidate in (c for c in find(["zoo:"], pool) if isinstance(c, ScheduledCandidate)):
        for i, text in enumerate(captions(prompts)):
            place = folder / f"prompt-{i}" / candidate.name
            place.mkdir(parents=True)
            for k, pixels in enumerate(candidate.make([text] * copies, list(range(copies)), 8)):
                Image.fromarray(pixels).save(place / f"{k}.png")
    return folder


def _thinned(dataset: Dataset, most: int) -> Dataset:
    """At most `most` pictures, whole prompts at a time where that is enough: cells stay as full as they are."""
    if len(dataset) <= most:
        return dataset
    rng = np.random.default_rng(0)
    order = rng.permutation(np.unique(dataset.group))
    kept: list[Any] = []
    count = 0
    for group in order:
        size = int((dataset.group == group).sum())
        if kept and count + size > most:
            break
        kept.append(group)
        count += size
    rows = np.flatnonzero(np.isin(dataset.group, kept))
    return dataset.only(rows if len(rows) <= most else np.sort(rng.permutation(rows)[:most]))
