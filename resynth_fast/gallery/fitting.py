"""Fit a gallery: what a frozen snapshot says of its generators, calibrated on itself by leaving prompts out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..errors import ConfigError
from ..evaluation.config import EvaluationConfig
from ..evaluation.dataset import Dataset, DatasetFeatures
from ..evaluation.protocols import ProtocolRunner
from ..extractors.space import FeatureSpace
from ..scoring.calibration import Calibration, CalibrationPoint
from ..scoring.gallery_fit import GalleryFit
from ..scoring.score import fit_temperature
from .entry import GENERAL
from .store import Gallery, Snapshot

REFERENCES = (1, 2, 4, 8)
PROMPTS_TO_CALIBRATE = 5
FALSE_REJECTIONS = 0.05


def fit(gallery: Gallery, space: FeatureSpace, groups: Sequence[str] = (GENERAL,)) -> GalleryFit:
    """Fit what is in `groups`, keep it in the gallery, and give it with its hash.

    Pictures without a prompt cannot be told from their content and are left out. ConfigError where nothing can be fitted.
    """
    snapshot = gallery.snapshot(groups)
    described = _described(gallery, snapshot)
    dataset = described.dataset
    fitted = GalleryFit.of(
        space.constants.scaled(described.features),
        dataset.generator,
        dataset.prompt,
        dataset.generators,
        extractor=space.sha256,
        snapshot=snapshot.sha256,
    )
    fitted = replace(fitted, calibration=_calibration(described, space))
    return replace(fitted, sha256=gallery.write_fit(snapshot, fitted.arrays(), fitted.settings()))


def newest(gallery: Gallery, sha256: str | None = None) -> GalleryFit:
    """The fit of that hash (its first digits are enough), or the newest; ConfigError if there is none."""
    names = [name for name in gallery.fits() if name.startswith(sha256 or "")]
    if not names:
        raise ConfigError(f"{gallery.folder} has no fit {sha256 or ''}; make one with `resynth gallery fit`")
    if sha256 and len(names) > 1:
        raise ConfigError(f"{len(names)} fits of {gallery.folder} begin with {sha256}; give more digits")
    stored = gallery.read_fit(names[0])
    return GalleryFit.restored(stored.arrays, stored.settings, sha256=stored.sha256, snapshot=stored.snapshot_sha256)


def _described(gallery: Gallery, snapshot: Snapshot) -> DatasetFeatures:
    rows = [i for i, prompt in enumerate(snapshot.prompts) if prompt is not None]
    names, prompts = (sorted({text[i] or "" for i in rows}) for text in (snapshot.generators, snapshot.prompts))
    if len(names) < 2:
        raise ConfigError(
            f"{gallery.folder} holds prompted pictures of {len(names)} generators; a fit compares two at least: add more, with --prompt"
        )
    generator = np.array([names.index(snapshot.generators[i]) for i in rows])
    prompt = np.array([prompts.index(snapshot.prompts[i] or "") for i in rows])
    everywhere = np.ones(len(rows), np.bool_)
    dataset = Dataset(
        files=tuple(Path(str(row)) for row in snapshot.rows[rows]),
        generators=tuple(names),
        prompts=tuple(prompts),
        generator=generator,
        prompt=prompt,
        group=prompt,
        probe=everywhere,
        reference=everywhere,
    )
    return DatasetFeatures(dataset, gallery.features(snapshot.rows[rows]), None, 0.0)


def _calibration(data: DatasetFeatures, space: FeatureSpace) -> Calibration | None:
    """Each picture asked about with references from its own cell and a gallery of the other prompts; None where that is too little."""
    dataset = data.dataset
    cells = np.unique(np.stack([dataset.generator, dataset.prompt]), axis=1, return_counts=True)[1]
    most = int(np.median(cells)) - 1
    if len(dataset.prompts) < PROMPTS_TO_CALIBRATE or most < 1:
        return None
    points = []
    for k in [k for k in REFERENCES if k <= most]:
        bench = ProtocolRunner(data, space.constants, list(space.extractor.block_sizes.values()), EvaluationConfig(references=k, draws=2))
        judged = bench.judge()
        temperature = fit_temperature(list(judged.scores), [int(t) for t in judged.truth])
        points.append(CalibrationPoint(k, 0, temperature, float(np.quantile(judged.consistency, FALSE_REJECTIONS))))
    return Calibration(tuple(points), f"{len(dataset)} gallery pictures of {len(dataset.prompts)} prompts, each prompt left out")
