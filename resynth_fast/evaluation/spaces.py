"""The feature spaces of a described dataset: for each fold of prompts, what a gallery of the other folds makes of them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..arrays import Doubles, Integers
from ..scoring.gallery_fit import GalleryFit
from ..scoring.prior import Prior
from ..scoring.whitening import Constants, Whitening, whitening_of
from .config import EvaluationConfig
from .dataset import Dataset, DatasetFeatures

FOLDS = 5
KEPT = 2 * FOLDS
"""Spaces that are kept: one setting's folds, and those of a variant that it is compared with in turn."""


def folds(dataset: Dataset, seed: int) -> Integers:
    """(n,) fold of every picture; a group's pictures are in one fold."""
    groups = np.unique(dataset.group)
    shuffled = np.random.default_rng(seed).permutation(len(groups))
    found: Integers = shuffled[np.searchsorted(groups, dataset.group)] % min(FOLDS, len(groups))
    return found


@dataclass(frozen=True)
class Space:
    """Where pictures of one fold (without a gallery: of all) are judged."""

    whitening: Whitening
    prior: Prior | None
    """None without a gallery"""
    place: Integers
    """(n,) row of a picture in `points`, −1 where it has none"""
    points: Doubles
    """(m, d) whitened pictures"""

    def __call__(self, rows: Integers) -> Doubles:
        """Points (k, d) of dataset rows (k,)."""
        return self.points[self.place[rows]]


class Spaces:
    """Spaces by setting, fold and candidates. Benches that share them share the work: neither the number of references
    nor the probes' features (degraded or not) enter a space."""

    def __init__(self, data: DatasetFeatures, constants: Constants) -> None:
        self.data, self.constants = data, constants
        self._kept: OrderedDict[object, Space] = OrderedDict()
        self._scaled: dict[bool, Doubles] = {}

    def families(self, setting: EvaluationConfig) -> tuple[str, ...]:
        """Families of degradations that the whitening is told of."""
        if "nuisance" in setting.without:
            return ()
        return tuple(family for family in self.constants.nuisance if family not in setting.leave_out)

    def scaled(self, setting: EvaluationConfig, described: DatasetFeatures | None = None) -> Doubles:
        """(n, d) scaled features of the dataset, or of another description of it."""
        plain = "scaling" in setting.without
        if described is not None:
            return described.features.astype(np.float64) if plain else self.constants.scaled(described.features)
        if plain not in self._scaled:
            self._scaled[plain] = self.scaled(setting, self.data)
        return self._scaled[plain]

    def get(self, setting: EvaluationConfig, fold: int, candidates: Sequence[int]) -> Space:
        """The space for probes of `fold`; a generator that is no candidate is in no fit."""
        steps = frozenset(setting.without) & {"scaling", "whitening", "own"}
        gallery = (setting.seed, fold, tuple(candidates)) if setting.gallery else None
        key = gallery, steps, self.families(setting)
        if key not in self._kept:
            self._kept[key] = self._make(setting, fold, candidates)
        self._kept.move_to_end(key)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return self._kept[key]

    def _make(self, setting: EvaluationConfig, fold: int, candidates: Sequence[int]) -> Space:
        dataset, x = self.data.dataset, self.scaled(setting)
        rows, names, fit = np.arange(len(dataset)), [dataset.generators[g] for g in candidates], None
        if setting.gallery:
            of = folds(dataset, setting.seed)
            rows = np.flatnonzero(of == fold)
            train = np.flatnonzero(dataset.reference & (of != fold) & np.isin(dataset.generator, candidates))
            if len(train):
                position = np.full(len(dataset.generators), -1)
                position[list(candidates)] = np.arange(len(candidates))
                fit = GalleryFit.of(x[train], position[dataset.generator[train]], dataset.prompt[train], names)
        families = self.families(setting)
        if "whitening" in setting.without:
            whitening = Whitening(np.zeros((x.shape[1], 0)), np.zeros(0), 1.0)
        elif fit is not None and "own" not in setting.without:
            whitening = fit.whitening(self.constants, families)
        else:
            whitening = whitening_of(self.constants, families=families)
        place = np.full(len(dataset), -1)
        place[rows] = np.arange(len(rows))
        return Space(whitening, fit.prior(whitening, names) if fit is not None else None, place, whitening(x[rows]))
