"""Extractor bundles: constants and calibration are fitted on labelled pictures; their generators need not be candidates."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from resynth_fast.bundle import Bundle
from resynth_fast.candidates import ScheduledCandidate, find
from resynth_fast.engines.pool import EnginePool
from resynth_fast.errors import BundleError
from resynth_fast.evaluation import calibrate
from resynth_fast.evaluation.dataset import Dataset, DatasetFeatures, describe, read
from resynth_fast.extractors.network import LAST
from resynth_fast.extractors.space import FeatureSpace, open_space, pack
from resynth_fast.files import pack_arrays
from resynth_fast.images import perturbations
from resynth_fast.scoring.calibration import UNCALIBRATED, Calibration
from resynth_fast.scoring.domain import Domain
from resynth_fast.scoring.whitening import Constants, Moment, fit_constants

from . import bundles
from .graphs import Network

PICTURES = 1500
"""Maximum number of pictures that the constants are fitted on."""
DEGRADED = 96
"""Maximum number of pictures that the nuisance constants are fitted on."""
REFERENCES = (1, 2, 4)
BATCH_TOLERANCE = 1e-4


def write(
    to: Path,
    fields: Mapping[str, Any],
    networks: Mapping[str, Network | bytes],
    columns: int,
    *,
    pictures: Path | None = None,
    threads: int = 1,
    description: str = "",
) -> Bundle:
    """Write an extractor bundle of `columns` features, its constants and calibration fitted on labelled pictures.

    Args:
        to: Folder that gets the bundle, under its name.
        fields: Of the manifest: kind, name, family, licence, pixels, and what the extractor's kind reads.
        networks: Components by name; none if the extractor has no network.
        columns: Number of features of a picture.
        pictures: Dataset with several generators per prompt; by default pictures of the embedded zoo.
        threads: Threads of the engines.
        description: Line of the bundle's card.

    Raises:
        BundleError: A picture's features depend on the rest of the batch. Nothing is written then.
    """
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        neutral = Constants(np.zeros(columns), np.ones(columns), Moment(np.zeros((columns, 0)), np.zeros(0)))
        features = {name: network for name, network in networks.items() if name != LAST}
        draft = bundles.write(work, {**fields, "calibration": UNCALIBRATED.to_json()}, features, constants=pack(neutral))
        unfitted = open_space(draft, EnginePool(threads=threads))
        _verify(unfitted)
        constants, domain, calibration, text = fit(unfitted, pictures or zoo_pictures(work / "zoo-pictures"), work / "features")
        card = {**({"description": description} if description else {}), "fitted_on": text}
        filled = {**fields, "calibration": calibration.to_json(), "card": card}
        return bundles.write(to, filled, networks, constants=pack(constants), domain=pack_arrays(domain.arrays()) if domain else None)


def _verify(space: FeatureSpace) -> None:
    """Check that features are finite and do not depend on the rest of the batch; BundleError otherwise."""
    size = space.extractor.working_size
    pictures = np.random.default_rng(0).integers(0, 256, (3, size, size, 3)).astype(np.uint8)
    together, alone = space.extractor.extract(pictures), np.concatenate([space.extractor.extract(p[None]) for p in pictures])
    error = float(np.abs(together - alone).max() / np.abs(alone).max())
    if not error <= BATCH_TOLERANCE:
        raise BundleError(
            f"{space.name}: a picture's features change by {error:.1e} with the rest of the batch; "
            f"at most {BATCH_TOLERANCE:.0e} is allowed, so nothing was written"
        )


def fit(unfitted: FeatureSpace, root: Path, cache: Path) -> tuple[Constants, Domain | None, Calibration, str]:
    """Constants, domain, calibration and a description of the pictures they were fitted on, from the dataset in `root`.

    There is no domain if the dataset has fewer than PROMPTS_TO_CALIBRATE prompts.
    """
    dataset = _thinned(read(root), PICTURES)
    data = describe(dataset, unfitted, cache=cache)
    some = _thinned(data.dataset, DEGRADED)
    changed = {
        name: describe(some, unfitted, degradation=name, cache=cache)
        for name in dict.fromkeys([*perturbations.DOMAIN, *(name for names in perturbations.NUISANCE.values() for name in names)])
    }
    clean = describe(some, unfitted, cache=cache).features
    degraded = {
        family: np.concatenate([changed[name].features - clean for name in names]) for family, names in perturbations.NUISANCE.items()
    }
    domain = _domain({"clean": data, **{name: changed[name] for name in perturbations.DOMAIN}})
    dataset = data.dataset
    constants = fit_constants(data.features, unfitted.extractor.block_sizes, dataset.generator, dataset.prompt, degraded)
    text = f"{len(dataset)} pictures by {len(dataset.generators)} generators of {len(np.unique(dataset.group))} prompts, {root.name}"
    smallest = int(dataset.cell_sizes().min())
    if smallest < 2 or len(np.unique(dataset.group)) < calibrate.PROMPTS_TO_CALIBRATE:
        return (
            constants,
            domain,
            replace(UNCALIBRATED, source=f"{UNCALIBRATED.source}; {text} are too few per cell, or of too few prompts"),
            text,
        )
    block_sizes = list(unfitted.extractor.block_sizes.values())
    points = calibrate.on_dataset(data, constants, block_sizes, "one-shot", [count for count in REFERENCES if count < smallest])
    return constants, domain, Calibration(points, text), text


def _domain(pictures: Mapping[str, DatasetFeatures]) -> Domain | None:
    """The domain of pictures by degradation: every third prompt says where it ends. None if there are too few prompts."""
    prompts = np.unique(pictures["clean"].dataset.group)
    if len(prompts) < calibrate.PROMPTS_TO_CALIBRATE:
        return None
    fitted, held_out = {}, {}
    for name, described in pictures.items():
        out = np.isin(described.dataset.group, prompts[::3])
        fitted[name], held_out[name] = described.features[~out], described.features[out]
    present = [name for name in pictures if len(fitted[name]) > 1 and len(held_out[name])]
    return Domain.fit({name: fitted[name] for name in present}, {name: held_out[name] for name in present})


def zoo_pictures(folder: Path, prompts: int = 24, copies: int = 2) -> Path:
    """Write pictures by the embedded zoo as a dataset <prompt>/<generator>/<pictures>, for use without another dataset."""
    from .zoo.attributes import training_captions

    pool = EnginePool(threads=1)
    for candidate in (c for c in find(["zoo:"], pool) if isinstance(c, ScheduledCandidate)):
        for i, text in enumerate(training_captions(prompts)):
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
