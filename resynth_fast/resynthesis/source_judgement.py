"""Judges probes by sources that cannot be run: all pictures of a source together, in a space and a calibration of their own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from .. import files
from ..candidates.folder import Exemplars, SelectedExemplars
from ..errors import BundleError
from ..extractors.space import FeatureSpace
from ..kernels.similarity import Scores
from ..scoring.calibration import UNCALIBRATED, Calibration
from ..scoring.sources import FOLDS, SourceModel, Sources, content_groups, most_of_each
from ..types import Doubles, Integers, PreparedProbe

VERSION = 1
"""Of the cached calibrations; another version is measured again."""


class SourceJudgement:
    """The pictures of some sources, how probes are judged by them, and the calibration that they give.

    A calibration takes some twenty decompositions of the pictures' features (seconds), and is cached by all that it depends on.
    """

    def __init__(self, exemplars: Sequence[Exemplars], space: FeatureSpace, cache: Path | None = None) -> None:
        """`cache`: folder of calibrations, by default in the user's cache."""
        self.exemplars, self._space = exemplars, space
        most = most_of_each([len(source.files) for source in exemplars])
        # By hash: a folder may be ordered by content, and the order must not count.
        self._rows = [sorted(range(len(e.files)), key=lambda i, e=e: e.files[i][0])[:most] for e in exemplars]  # type: ignore[misc]
        self._hashes = [e.files[i][0] for e, rows in zip(exemplars, self._rows, strict=True) for i in rows]
        self._prompts = [e.prompts[i] if e.prompts else None for e, rows in zip(exemplars, self._rows, strict=True) for i in rows]
        self._scaled = [space.constants.scaled(e.features) for e in exemplars]
        x = np.concatenate([scaled[rows] for scaled, rows in zip(self._scaled, self._rows, strict=True)])
        source = np.repeat(np.arange(len(exemplars)), [len(rows) for rows in self._rows])
        self.sources = Sources(space.constants, x, source, self._groups(x, source))
        self._folds = self.sources.folds()
        self._model = lru_cache(FOLDS + 2)(self._fitted)
        self.calibration = self._cached(cache or files.user_cache() / "sources")

    @property
    def counts(self) -> dict[str, int]:
        """Number of pictures that each source is judged by."""
        return {e.name: len(rows) for e, rows in zip(self.exemplars, self._rows, strict=True)}

    def __call__(self, probes: Sequence[PreparedProbe]) -> Scores:
        """Scores (P, n, C) and consistencies (P, n) of the probes and their perturbed copies.

        A probe of which a picture is a copy, or whose caption is a picture's prompt, is judged as in the calibration: without
        the pictures of like content.
        """
        judged = []
        for probe in probes:
            points = self._space.constants.scaled(np.concatenate([probe.features[None], probe.perturbed_features]))
            copies = {m.copy.sha256 for e in self.exemplars for m in e.given(probe.picture.sha256, probe.signatures)}
            judged.append(self._model(self._left_out(copies, probe.caption.text))(points[None]))
        return Scores(np.concatenate([j.scores for j in judged]), np.concatenate([j.consistency for j in judged]))

    def nearest(self, probe: PreparedProbe, count: int, left_out: Mapping[str, Collection[int]]) -> dict[str, SelectedExemplars]:
        """The `count` pictures of each source whose content is nearest to the probe's, to be shown, without the rows `left_out`."""
        point = self._space.constants.scaled(probe.features[None])[0]
        rows = zip(self.exemplars, self._scaled, strict=True)
        return {e.name: e.nearest(scaled, point, count, left_out[e.name]) for e, scaled in rows}

    def _groups(self, x: Doubles, source: Integers) -> Integers:
        """(n,) group of each picture: its prompt or, where that is unknown, what it shows."""
        groups = content_groups(x, source)
        prompts = {prompt: len(x) + i for i, prompt in enumerate(sorted({p for p in self._prompts if p is not None}))}
        return np.array([g if p is None else prompts[p] for g, p in zip(groups, self._prompts, strict=True)], np.int64)

    def _left_out(self, copies: Collection[str], caption: str) -> bytes:
        """The pictures that a probe with these copies must not be judged by, as a mask in bytes; b"" for none."""
        same = np.array([h in copies or (bool(caption) and p == caption) for h, p in zip(self._hashes, self._prompts, strict=True)])
        if not same.any():
            return b""
        for mask in (np.isin(self._folds, self._folds[same]), np.isin(self.sources.group, self.sources.group[same]), same):
            if len(np.unique(self.sources.source[~mask])) == self.sources.count:
                return mask.tobytes()
        lacking = [e.name for i, e in enumerate(self.exemplars) if not (self.sources.source[~same] == i).any()]
        raise BundleError(f"candidate {lacking[0]} has no picture but the probe and others of its prompt; add pictures of {lacking[0]}")

    def _fitted(self, left_out: bytes) -> SourceModel:
        mask = np.frombuffer(left_out, np.bool_) if left_out else np.zeros(len(self._hashes), np.bool_)
        return self.sources.without(mask)

    def _cached(self, folder: Path) -> Calibration:
        shared = len(self._hashes) - len(set(self._hashes))
        if shared:
            return Calibration(UNCALIBRATED.points, f"none: {shared} pictures are given for two sources", measured=False)
        parts = [self._space.sha256, list(zip(self._hashes, self._prompts, self.sources.source.tolist(), strict=True))]
        key = hashlib.sha256(json.dumps([VERSION, *parts]).encode()).hexdigest()
        return cached(folder / f"{key}.json", self.sources.calibration)


def cached(path: Path, measure: Callable[[], Calibration]) -> Calibration:
    """The calibration in `path`; if there is none, or it is damaged, it is measured and written there, where that is possible."""
    try:
        return Calibration.from_json(json.loads(path.read_bytes()), str(path))
    except (OSError, ValueError, BundleError):
        calibration = measure()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write(path, json.dumps(calibration.to_json()).encode())
    except OSError:  # the next run measures again
        pass
    return calibration
