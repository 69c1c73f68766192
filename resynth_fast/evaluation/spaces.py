"""Feature spaces of a dataset: for each fold of prompts, the space fitted on a gallery of the other folds."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..scoring.gallery_fit import GalleryFit
from ..scoring.prior import Prior
from ..scoring.whitening import Constants, Whitening, whitening_of
from ..types import Doubles, Integers
from .config import EvaluationConfig
from .dataset import Dataset, DatasetFeatures

FOLDS = 5
CACHED_SPACES = 2 * FOLDS
"""Number of cached spaces: the folds of one configuration, and those of a variant that it is compared with."""


def folds(dataset: Dataset, seed: int) -> Integers:
    """(n,) fold of every picture; all pictures of a group are in the same fold."""
    groups = np.unique(dataset.group)
    shuffled = np.random.default_rng(seed).permutation(len(groups))
    fold: Integers = shuffled[np.searchsorted(groups, dataset.group)] % min(FOLDS, len(groups))
    return fold


@dataclass(frozen=True)
class Space:
    """The space in which pictures of one fold are judged; without a gallery, of all folds."""

    whitening: Whitening
    prior: Prior | None
    """None without a gallery"""
    row: Integers
    """(n,) row of each picture in `points`, −1 if it is not in this fold"""
    points: Doubles
    """(m, d) whitened pictures"""

    def __call__(self, rows: Integers) -> Doubles:
        """Points (k, d) of dataset rows (k,)."""
        return self.points[self.row[rows]]


class Spaces:
    """Cache of spaces by configuration, fold and candidates. Several `ProtocolRunner` can share one, since a space depends
    neither on the number of references nor on the probes' features (degraded or not)."""

    def __init__(self, data: DatasetFeatures, constants: Constants) -> None:
        self.data, self.constants = data, constants
        self._cached: OrderedDict[object, Space] = OrderedDict()
        self._scaled: dict[bool, Doubles] = {}

    def families(self, config: EvaluationConfig) -> tuple[str, ...]:
        """Families of degradations in the nuisance constants that the whitening uses."""
        if "nuisance" in config.without:
            return ()
        return tuple(family for family in self.constants.nuisance if family not in config.leave_out)

    def scaled(self, config: EvaluationConfig, described: DatasetFeatures | None = None) -> Doubles:
        """(n, d) scaled features of the dataset, or of `described`: other features of the same pictures."""
        plain = "scaling" in config.without
        if described is not None:
            return described.features.astype(np.float64) if plain else self.constants.scaled(described.features)
        if plain not in self._scaled:
            self._scaled[plain] = self.scaled(config, self.data)
        return self._scaled[plain]

    def get(self, config: EvaluationConfig, fold: int, candidates: Sequence[int]) -> Space:
        """The space for probes of `fold`; the fit leaves out generators that are not candidates."""
        steps = frozenset(config.without) & {"scaling", "whitening", "own"}
        gallery = (config.seed, fold, tuple(candidates)) if config.gallery else None
        key = gallery, steps, self.families(config)
        if key not in self._cached:
            self._cached[key] = self._fit(config, fold, candidates)
        self._cached.move_to_end(key)
        while len(self._cached) > CACHED_SPACES:
            self._cached.popitem(last=False)
        return self._cached[key]

    def _fit(self, config: EvaluationConfig, fold: int, candidates: Sequence[int]) -> Space:
        dataset, x = self.data.dataset, self.scaled(config)
        rows, names, fit = np.arange(len(dataset)), [dataset.generators[g] for g in candidates], None
        if config.gallery:
            fold_of = folds(dataset, config.seed)
            rows = np.flatnonzero(fold_of == fold)
            train = np.flatnonzero(dataset.reference & (fold_of != fold) & np.isin(dataset.generator, candidates))
            if len(train):
                position = np.full(len(dataset.generators), -1)
                position[list(candidates)] = np.arange(len(candidates))
                fit = GalleryFit.of(x[train], position[dataset.generator[train]], dataset.prompt[train], names)
        families = self.families(config)
        if "whitening" in config.without:
            whitening = Whitening(np.zeros((x.shape[1], 0)), np.zeros(0), 1.0)
        elif fit is not None and "own" not in config.without:
            whitening = fit.whitening(self.constants, families)
        else:
            whitening = whitening_of(self.constants, families=families)
        row = np.full(len(dataset), -1)
        row[rows] = np.arange(len(rows))
        return Space(whitening, fit.prior(whitening, names) if fit is not None else None, row, whitening(x[rows]))
