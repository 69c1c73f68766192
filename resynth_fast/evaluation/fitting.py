"""Fit a gallery: the statistics of its generators in a frozen snapshot, calibrated on the snapshot itself by leaving prompts out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..errors import ConfigError
from ..extractors.space import FeatureSpace
from ..gallery import GENERAL, Gallery, Snapshot
from ..scoring.calibration import Calibration
from ..scoring.gallery_fit import GalleryFit
from . import calibrate
from .dataset import Dataset, DatasetFeatures

REFERENCES = (1, 2, 4, 8)
"""Numbers of references that a fit is calibrated for, as far as the gallery has them."""


def fit(gallery: Gallery, space: FeatureSpace, groups: Sequence[str] = (GENERAL,)) -> GalleryFit:
    """Fit the pictures in `groups` and store the fit in the gallery; the returned fit has its hash.

    Pictures without a prompt are left out, since their generator cannot be separated from their content. ConfigError if
    fewer than two generators remain.
    """
    snapshot = gallery.snapshot(groups)
    data = _features_of(gallery, snapshot)
    dataset = data.dataset
    fitted = GalleryFit.of(
        space.constants.scaled(data.features),
        dataset.generator,
        dataset.prompt,
        dataset.generators,
        extractor=space.sha256,
        snapshot=snapshot.sha256,
    )
    fitted = replace(fitted, calibration=_calibration(data, space))
    return replace(fitted, sha256=gallery.write_fit(snapshot, fitted.arrays(), fitted.settings()))


def _features_of(gallery: Gallery, snapshot: Snapshot) -> DatasetFeatures:
    """The snapshot's pictures that have a prompt, as a dataset in which each is a probe and a reference."""
    rows = [i for i, prompt in enumerate(snapshot.prompts) if prompt is not None]
    generators, prompts = (sorted({names[i] or "" for i in rows}) for names in (snapshot.generators, snapshot.prompts))
    if len(generators) < 2:
        raise ConfigError(
            f"{gallery.folder} holds pictures with a prompt of {len(generators)} generators; a fit needs at least two: "
            "add more with `resynth gallery add --prompt`"
        )
    prompt = np.array([prompts.index(snapshot.prompts[i] or "") for i in rows])
    every = np.ones(len(rows), np.bool_)
    dataset = Dataset(
        files=tuple(Path(str(row)) for row in snapshot.rows[rows]),
        generators=tuple(generators),
        prompts=tuple(prompts),
        generator=np.array([generators.index(snapshot.generators[i]) for i in rows]),
        prompt=prompt,
        group=prompt,
        probe=every,
        reference=every,
    )
    return DatasetFeatures(dataset, gallery.features(snapshot.rows[rows]), None, 0.0)


def _calibration(data: DatasetFeatures, space: FeatureSpace) -> Calibration | None:
    """Calibration on each picture as a probe, with references of its own prompt and a gallery of the other prompts.

    None if there are too few prompts, or too few pictures of a prompt.
    """
    dataset = data.dataset
    most = int(np.median(dataset.cell_sizes())) - 1
    if len(dataset.prompts) < calibrate.PROMPTS_TO_CALIBRATE or most < 1:
        return None
    points = calibrate.on_dataset(
        data, space.constants, list(space.extractor.block_sizes.values()), "default", [count for count in REFERENCES if count <= most]
    )
    return Calibration(points, f"{len(dataset)} gallery pictures of {len(dataset.prompts)} prompts, each prompt left out")
