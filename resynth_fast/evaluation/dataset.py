"""Labelled pictures on disk: generator and prompt of each, and whether it is a probe, a reference or both.

Two layouts are read: the matrix `ROOT/<prompt>/<generator>/<pictures>`, and that of the paper's authors,
`ROOT/images/<source>/<identity>.png` with its resyntheses in `ROOT/images/<source>/images/<generator>/<identity>.png`.
"""

from __future__ import annotations

import hashlib
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import __version__, files, images
from ..errors import BundleError, ConfigError, InputError
from ..extractors.space import FeatureSpace
from ..images.perturbations import perturbation
from ..types import Booleans, Doubles, Floats, Integers
from . import baseline

CHUNK = 16
VERSION = 1
"""Version of the cached files."""

Progress = Callable[[int, int], None]
"""Called with (done, of) as work advances."""


def silent(done: int, of: int) -> None:
    """Progress that is not shown."""


@dataclass(frozen=True)
class Dataset:
    """n labelled pictures."""

    files: tuple[Path, ...]
    generators: tuple[str, ...]
    prompts: tuple[str, ...]
    generator: Integers
    """(n,) index of the generator"""
    prompt: Integers
    """(n,) index of the prompt: the references of a probe are the pictures of its prompt"""
    group: Integers
    """(n,) unit of folds and intervals; prompts of the same content have the same group"""
    probe: Booleans
    """(n,) whether the picture can be a probe"""
    reference: Booleans
    """(n,) whether the picture can be a reference"""
    skipped: tuple[str, ...] = ()
    """messages about the pictures that could not be read"""

    def __len__(self) -> int:
        return len(self.files)

    def cell_sizes(self) -> Integers:
        """Pictures of each cell (generator and prompt) that has any."""
        sizes: Integers = np.unique(np.stack([self.generator, self.prompt]), axis=1, return_counts=True)[1]
        return sizes

    def only(self, rows: npt.NDArray[Any], skipped: tuple[str, ...] = ()) -> Dataset:
        """The pictures of `rows`."""
        return replace(
            self,
            files=tuple(self.files[i] for i in np.arange(len(self))[rows]),
            generator=self.generator[rows],
            prompt=self.prompt[rows],
            group=self.group[rows],
            probe=self.probe[rows],
            reference=self.reference[rows],
            skipped=(*self.skipped, *skipped),
        )


def read(root: Path) -> Dataset:
    """The dataset in `root`; ConfigError if it has neither layout, or fewer than two generators."""
    if not root.is_dir():
        raise ConfigError(f"dataset {root} is not a folder; name a folder laid out as <prompt>/<generator>/<pictures>")
    rows = _paper(root) or _matrix(root)
    (generators, generator), (prompts, prompt), (_, group) = (
        np.unique([row[column] for row in rows] or [""], return_inverse=True) for column in (1, 2, 3)
    )
    if not rows or len(generators) < 2:
        raise ConfigError(
            f"{root} holds pictures of {len(generators) if rows else 0} generators; "
            "attribution needs at least two, laid out as <prompt>/<generator>/<pictures>"
        )
    return Dataset(
        files=tuple(row[0] for row in rows),
        generators=tuple(generators.tolist()),
        prompts=tuple(prompts.tolist()),
        generator=generator,
        prompt=prompt,
        group=group,
        probe=np.array([row[4] for row in rows]),
        reference=np.array([row[5] for row in rows]),
    )


_Row = tuple[Path, str, str, str, bool, bool]  # file, generator, prompt, group, probe, reference


def _matrix(root: Path) -> list[_Row]:
    return [
        (file, generator.name, prompt.name, prompt.name, True, True)
        for prompt in _folders(root)
        for generator in _folders(prompt)
        for file in _pictures(generator)
    ]


def _paper(root: Path) -> list[_Row]:
    """Each probe has its own resyntheses: its prompt is the pair of source and identity, its group is the identity."""
    base = root / "images"
    rows: list[_Row] = []
    for source in _folders(base) if base.is_dir() else []:
        rows += [(file, source.name, f"{source.name}/{file.stem}", file.stem, True, False) for file in _pictures(source)]
        for generator in _folders(source / "images") if (source / "images").is_dir() else []:
            rows += [(file, generator.name, f"{source.name}/{file.stem}", file.stem, False, True) for file in _pictures(generator)]
    return rows if any(row[5] for row in rows) else []


def _folders(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))


def _pictures(path: Path) -> list[Path]:
    return sorted(p for p in path.iterdir() if p.suffix.lower() in images.SUFFIXES and not p.name.startswith("."))


@dataclass(frozen=True)
class DatasetFeatures:
    """Features of a dataset's pictures."""

    dataset: Dataset
    features: Floats
    """(n, d), unscaled"""
    last: Floats | None
    """(n, e) the encoder's own embedding, where it was exported"""
    seconds_per_picture: float
    facts: Doubles | None = None
    """(n, f) facts about the files for `baseline`; only of clean pictures"""


def describe(
    dataset: Dataset,
    space: FeatureSpace,
    *,
    degradation: str | None = None,
    cache: Path | None = None,
    backend: str = "",
    progress: Progress = silent,
) -> DatasetFeatures:
    """Features of every readable picture, after `degradation`; cached under a hash of everything they depend on.

    `cache`: folder, by default in the user's cache; `backend`: name, version and precision of what runs the extractor.
    """
    folder = cache or files.user_cache() / "features"
    stats = [_stat(file) for file in dataset.files]
    key = hashlib.sha256(repr((__version__, VERSION, space.sha256, backend, degradation, stats)).encode()).hexdigest()
    path = folder / f"{key}.npz"
    features = _cached(path, dataset)
    if features is None:
        features, rows = _describe(dataset, space, degradation, progress)
        _write_cache(path, features, rows)
    return features


def _stat(file: Path) -> tuple[str, int, int]:
    """Path, size and time of change, which tell whether a file was changed. A missing file is reported when it is read."""
    try:
        stat = file.stat()
    except OSError:
        return str(file.absolute()), -1, -1
    return str(file.resolve()), stat.st_size, stat.st_mtime_ns


def _cached(path: Path, dataset: Dataset) -> DatasetFeatures | None:
    """The features that an earlier run cached; None if there are none, or the file is damaged."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            readable = dataset.only(arrays["rows"], tuple(arrays["skipped"].tolist()))
            return DatasetFeatures(readable, arrays["features"], arrays.get("last"), float(arrays["seconds"]), arrays.get("facts"))
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
        return None


def _write_cache(path: Path, data: DatasetFeatures, rows: Integers) -> None:
    arrays: dict[str, npt.NDArray[Any]] = {
        "rows": rows,
        "features": data.features,
        "seconds": np.array(data.seconds_per_picture),
        "skipped": np.array(data.dataset.skipped, dtype=str),
    }
    arrays |= {name: array for name, array in (("last", data.last), ("facts", data.facts)) if array is not None}
    with files.write_errors(f"cache of features {path.parent}", ConfigError, "name a folder that can be written with --cache"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(path) as file:
            np.savez(file, allow_pickle=False, **arrays)


def _describe(dataset: Dataset, space: FeatureSpace, degradation: str | None, progress: Progress) -> tuple[DatasetFeatures, Integers]:
    """Features, and the rows of the pictures that could be read."""
    change = perturbation(degradation) if degradation else None
    rows: list[int] = []
    features: list[Floats] = []
    last: list[Floats] = []
    facts: list[list[float]] = []
    skipped: list[str] = []
    seconds = 0.0
    for first in range(0, len(dataset), CHUNK):
        progress(first, len(dataset))
        start = time.perf_counter()
        chunk, normalised = [], []
        for i in range(first, min(first + CHUNK, len(dataset))):
            try:
                pixels = images.read(dataset.files[i]).pixels
            except InputError as error:
                skipped.append(str(error))
                continue
            normalised.append(space.pixels.normalise(change(pixels) if change else pixels))
            chunk.append(i)
        if normalised:
            features.append(space.extractor.extract(np.stack(normalised)))
            if space.extractor.embeds:
                last.append(space.extractor.embed(np.stack(normalised)))
        seconds += time.perf_counter() - start
        rows += chunk
        if not degradation:
            facts += [baseline.facts(dataset.files[i], picture) for i, picture in zip(chunk, normalised, strict=True)]
    progress(len(dataset), len(dataset))
    if not features:
        raise ConfigError(
            f"none of the {len(dataset)} pictures can be read ({skipped[0] if skipped else 'the folder has none'}); give readable pictures"
        )
    joined = np.concatenate(features)
    if not np.isfinite(joined).all():
        raise BundleError(f"extractor {space.name} gives a feature that is not finite; verify its bundle or export it again")
    readable = dataset.only(np.array(rows), tuple(skipped))
    return DatasetFeatures(
        readable, joined, np.concatenate(last) if last else None, seconds / len(rows), np.array(facts) if facts else None
    ), np.array(rows)
