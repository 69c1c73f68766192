"""Labelled pictures on disk: who made each, for which prompt, and whether it may be asked about, compared with, or both.

Two layouts are read: the matrix `ROOT/<prompt>/<generator>/<pictures>`, and that of the paper's authors,
`ROOT/images/<source>/<identity>.png` with its resyntheses in `ROOT/images/<source>/images/<generator>/<identity>.png`.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import platformdirs

from .. import images
from ..errors import BundleError, ConfigError, InputError
from ..extractors.network import LAST, NetworkExtractor
from ..extractors.space import FeatureSpace
from ..perturbations import perturbation
from .metrics import Booleans, Integers

CHUNK = 16

Floats = npt.NDArray[np.float32]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Dataset:
    """n labelled pictures."""

    files: tuple[Path, ...]
    generators: tuple[str, ...]
    prompts: tuple[str, ...]
    generator: Integers
    """(n,) index of the maker"""
    prompt: Integers
    """(n,) index of the prompt: the references of a probe are the pictures of its prompt"""
    group: Integers
    """(n,) unit of folds and intervals; prompts with one content have one group"""
    probe: Booleans
    """(n,) may be asked about"""
    reference: Booleans
    """(n,) may be compared with"""
    skipped: tuple[str, ...] = ()
    """pictures that could not be read, and why"""

    def __len__(self) -> int:
        return len(self.files)

    def only(self, rows: npt.NDArray[Any], skipped: tuple[str, ...] = ()) -> Dataset:
        """The pictures of `rows`."""
        return replace(
            self, files=tuple(self.files[i] for i in np.arange(len(self))[rows]), generator=self.generator[rows], prompt=self.prompt[rows],
            group=self.group[rows], probe=self.probe[rows], reference=self.reference[rows], skipped=(*self.skipped, *skipped),
        )  # fmt: skip


def read(root: Path) -> Dataset:
    """The dataset in `root`; ConfigError if it has neither layout, or fewer than two generators."""
    if not root.is_dir():
        raise ConfigError(f"no dataset at {root}; give a folder laid out as <prompt>/<generator>/<pictures>")
    rows = _paper(root) or _matrix(root)
    generators, prompts, groups = sorted({row[1] for row in rows}), sorted({row[2] for row in rows}), sorted({row[3] for row in rows})
    if len(generators) < 2:
        raise ConfigError(
            f"{root} holds pictures of {len(generators)} generators; attribution needs two at least, laid out as <prompt>/<generator>/<pictures>"
        )
    return Dataset(
        files=tuple(row[0] for row in rows), generators=tuple(generators), prompts=tuple(prompts),
        generator=np.array([generators.index(row[1]) for row in rows]), prompt=np.array([prompts.index(row[2]) for row in rows]),
        group=np.array([groups.index(row[3]) for row in rows]), probe=np.array([row[4] for row in rows]),
        reference=np.array([row[5] for row in rows]),
    )  # fmt: skip


_Row = tuple[Path, str, str, str, bool, bool]  # file, generator, prompt, group, probe, reference


def _matrix(root: Path) -> list[_Row]:
    return [
        (file, generator.name, prompt.name, prompt.name, True, True)
        for prompt in _folders(root)
        for generator in _folders(prompt)
        for file in _pictures(generator)
    ]


def _paper(root: Path) -> list[_Row]:
    """Each probe has resyntheses of its own: its prompt is the pair of source and identity, its group the identity."""
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
class Described:
    """Features of a dataset's pictures."""

    dataset: Dataset
    features: Floats
    """(n, d), unscaled"""
    last: Floats | None
    """(n, e) the encoder's own embedding, where it was exported"""
    seconds_per_picture: float


def describe(
    dataset: Dataset,
    space: FeatureSpace,
    *,
    degradation: str | None = None,
    cache: Path | None = None,
    progress: Progress = lambda done, of: None,
) -> Described:
    """Features of every readable picture, after `degradation`; kept in `cache` under a hash of all that they depend on."""
    folder = cache or Path(platformdirs.user_cache_dir("resynth_fast")) / "features"
    stats = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in dataset.files]
    key = hashlib.sha256(repr((space.sha256, degradation, stats)).encode()).hexdigest()
    path = folder / f"{key}.npz"
    if path.exists():
        with np.load(path, allow_pickle=False) as kept:
            last = kept.get("last")
            found = dataset.only(kept["rows"], tuple(kept["skipped"].tolist()))
            return Described(found, kept["features"], last, float(kept["seconds"]))
    made = _describe(dataset, space, degradation, progress)
    rows, features, last, skipped, seconds = made
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{key}.{os.getpid()}.npz"
    with temporary.open("wb") as file:
        arrays: dict[str, npt.NDArray[Any]] = {"rows": rows, "features": features, "skipped": np.array(skipped, dtype=str)}
        arrays |= {"seconds": np.array(seconds)} | ({} if last is None else {"last": last})
        np.savez(file, allow_pickle=False, **arrays)
    os.replace(temporary, path)
    return Described(dataset.only(rows, tuple(skipped)), features, last, seconds)


def _describe(
    dataset: Dataset, space: FeatureSpace, degradation: str | None, progress: Progress
) -> tuple[Integers, Floats, Floats | None, list[str], float]:
    change = perturbation(degradation) if degradation else None
    encoder = space.extractor if isinstance(space.extractor, NetworkExtractor) and space.extractor.has(LAST) else None
    rows: list[int] = []
    features: list[Floats] = []
    last: list[Floats] = []
    skipped: list[str] = []
    start = time.perf_counter()
    for first in range(0, len(dataset), CHUNK):
        progress(first, len(dataset))
        normal = []
        for i in range(first, min(first + CHUNK, len(dataset))):
            try:
                pixels = images.read(dataset.files[i]).pixels
            except InputError as error:
                skipped.append(str(error))
                continue
            normal.append(space.pixels.normalise(change(pixels) if change else pixels))
            rows.append(i)
        if normal:
            features.append(space.extractor.extract(np.stack(normal)))
            if encoder is not None:
                last.append(encoder.extract_last(np.stack(normal)))
    progress(len(dataset), len(dataset))
    if not features:
        raise ConfigError(f"none of the {len(dataset)} pictures can be read: {skipped[0] if skipped else 'there are none'}")
    all_features = np.concatenate(features)
    if not np.isfinite(all_features).all():
        raise BundleError(f"{space.name}: a feature is not finite; verify or export the extractor again")
    seconds = (time.perf_counter() - start) / len(rows)
    return np.array(rows), all_features, np.concatenate(last) if last else None, skipped, seconds
