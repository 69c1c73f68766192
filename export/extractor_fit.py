"""Constants and calibration of an extractor, fitted on labelled pictures; their generators need not be candidates."""

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
"""Maximum number of pictures that the constants are fitted on."""
DEGRADED = 96
"""Maximum number of pictures that the nuisance constants are fitted on."""
REFERENCES = (1, 2, 4)


def fit(unfitted: FeatureSpace, root: Path, cache: Path) -> tuple[Constants, Calibration, str]:
    """Constants, calibration and a description of the pictures they were fitted on, from the dataset in `root`."""
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
        return constants, replace(UNCALIBRATED, source=f"{UNCALIBRATED.source}; {text} are too few per cell, or of too few prompts"), text
    block_sizes = list(unfitted.extractor.block_sizes.values())
    points = calibrate.on_dataset(data, constants, block_sizes, "one-shot", [count for count in REFERENCES if count < smallest])
    return constants, Calibration(points, text), text


def zoo_pictures(folder: Path, prompts: int = 24, copies: int = 2) -> Path:
    """Write pictures by the embedded zoo as a dataset <prompt>/<generator>/<pictures>, for use without another dataset."""
    from .zoo.calibrate import captions

    pool = EnginePool(threads=1)
    for candidate in (c for c in find(["zoo:"], pool) if isinstance(c, ScheduledCandidate)):
        for i, text in enumerate(captions(prompts)):
            cell = folder / f"prompt-{i}" / candidate.name
            cell.mkdir(parents=True)
            for k, pixels in enumerate(candidate.make([text] * copies, list(range(copies)), 8)):
                Image.fromarray(pixels).save(cell / f"{k}.png")
    return folder


def _thinned(dataset: Dataset, most: int) -> Dataset:
    """At most `most` pictures. Whole prompts are taken if possible, so that cells stay as full as they are."""
    if len(dataset) <= most:
        return dataset
    rng = np.random.default_rng(0)
    order = rng.permutation(np.unique(dataset.group))
    groups: list[Any] = []
    count = 0
    for group in order:
        size = int((dataset.group == group).sum())
        if groups and count + size > most:
            break
        groups.append(group)
        count += size
    rows = np.flatnonzero(np.isin(dataset.group, groups))
    return dataset.only(rows if len(rows) <= most else np.sort(rng.permutation(rows)[:most]))
