"""How probes are judged in an evaluation: references, gallery folds, recipes, unknown generators. No pictures, only features.

The references of a probe are pictures of its own prompt, drawn without the probe: its resyntheses. The gallery is made
of the *other* prompts, by folds, so that no verdict rests on a prompt that the gallery has seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np

from .. import recipe
from ..errors import ConfigError
from ..fit import Fit
from ..recipe import Constants, Doubles, Moment, Prior, Whitening
from .dataset import Described
from .metrics import Integers

RECIPES = ("default", "one-shot", "together", "layer", "paper")
STEPS = ("scaling", "whitening", "own", "nuisance", "centring", "gallery")
FOLDS = 5


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is evaluated."""

    recipe: str = "default"
    references: int = 1
    """of each candidate; 0: the gallery alone, the content estimated from the other pictures of the prompt"""
    draws: int = 5
    seed: int = 0
    without: tuple[str, ...] = ()
    """steps of the recipe that are left out"""
    leave_out: tuple[str, ...] = ()
    """families of degradations that are left out of the nuisance constants"""
    together: int | None = None
    """how many captions lend each other their resyntheses, the probe's own included; None: all"""

    def __post_init__(self) -> None:
        if self.recipe not in RECIPES:
            raise ConfigError(f"--recipe is {self.recipe!r}; it must be {', '.join(RECIPES)}")
        if unknown := set(self.without) - set(STEPS):
            raise ConfigError(f"--without is {sorted(unknown)[0]!r}; it must be {', '.join(STEPS)}")
        if not 0 <= self.references <= 1000 or not 1 <= self.draws <= 1000:
            raise ConfigError(f"references is {self.references} and draws {self.draws}; they must be 0 … 1000 and 1 … 1000")
        if self.references == 0 and self.recipe != "default":
            raise ConfigError(f"--references is 0, but recipe {self.recipe!r} has nothing but its references; use --recipe default")


@dataclass(frozen=True)
class Judged:
    """m judgements (probes × draws)."""

    probe: Integers
    """(m,) row of the dataset"""
    draw: Integers
    """(m,)"""
    truth: Integers
    """(m,) index among the candidates, −1 for an unknown generator"""
    scores: Doubles
    """(m, C)"""
    consistency: Doubles
    """(m,) low for unknown generators"""
    fold: Integers
    """(m,)"""


class Bench:
    """A described dataset under one setting; `judge` does the work."""

    def __init__(
        self, data: Described, constants: Constants, block_sizes: Sequence[int], setting: Setting, probes: Described | None = None
    ) -> None:
        """`block_sizes`: columns of each tap; `probes`: other features of the same pictures (degraded), for the probe's side alone."""
        self.data, self.setting = data.dataset, setting
        self._constants = _constants(constants, setting)
        families = tuple(f for f in self._constants.nuisance if f not in setting.leave_out) if "nuisance" not in setting.without else ()
        self._families = families
        if setting.recipe == "paper":
            if data.last is None:
                raise ConfigError(
                    "the extractor was exported without its own last layer, which the paper's score is made of; export it again with --last"
                )
            self._reference, self._probe = (np.asarray(d.last, np.float64) for d in (data, probes or data))
        elif setting.recipe == "layer":
            block = _middle(block_sizes)
            self._reference, self._probe = (d.features[:, block].astype(np.float64) for d in (data, probes or data))
        else:
            self._reference = self._constants.scaled(data.features)
            self._probe = self._reference if probes is None else self._constants.scaled(probes.features)
        groups = np.unique(self.data.group)
        shuffled = np.random.default_rng(setting.seed).permutation(len(groups))
        self.fold = shuffled[np.searchsorted(groups, self.data.group)] % min(FOLDS, len(groups))

    @property
    def gallery(self) -> bool:
        return self.setting.recipe == "default" and "gallery" not in self.setting.without

    def gallery_per_candidate(self) -> int:
        """Pictures of the scarcest candidate in the smallest gallery, beside the probe's own references."""
        if not self.gallery:
            return 0
        used = self.data.reference
        counts = [
            np.bincount(self.data.generator[used & (self.fold != f)], minlength=len(self.data.generators)) for f in np.unique(self.fold)
        ]
        return int(np.min(counts))

    def judge(self, candidates: Sequence[int] | None = None, probes: Integers | None = None) -> Judged:
        """Judge `probes` (rows; default all that may be asked about) by `candidates` (default all generators).

        A generator that is no candidate is in no fit and in no gallery.
        """
        candidates = list(range(len(self.data.generators)) if candidates is None else candidates)
        rows = np.flatnonzero(self.data.probe) if probes is None else probes
        judge = self._judge(candidates)
        found = [(i, draw, *judge(int(i), draw)) for draw in range(self.setting.draws) for i in rows]
        position = {g: c for c, g in enumerate(candidates)}
        kept = [row for row in found if np.isfinite(row[2]).all()]
        if not kept:
            raise ConfigError("no probe has a reference of every candidate; lower --references, or add pictures")
        index = np.array([row[0] for row in kept])
        return Judged(
            index, np.array([row[1] for row in kept]), np.array([position.get(int(g), -1) for g in self.data.generator[index]]),
            np.stack([row[2] for row in kept]), np.array([row[3] for row in kept]), self.fold[index],
        )  # fmt: skip

    def references_of(self, probe: int, draw: int, candidates: Sequence[int]) -> list[Integers]:
        """Rows of each candidate's references of a probe, drawn without it; the same for any order of asking."""
        found = []
        for g in candidates:
            rng = np.random.default_rng([self.setting.seed, draw, probe, g])
            found.append(rng.permutation(self._cell(int(self.data.prompt[probe]), g, probe))[: self.setting.references])
        return found

    def _cell(self, prompt: int, generator: int, probe: int = -1) -> Integers:
        rows = self._cells.get((prompt, generator), np.zeros(0, np.int64))
        others: Integers = rows[rows != probe]
        return others

    @cached_property
    def _cells(self) -> dict[tuple[int, int], Integers]:
        usable = np.flatnonzero(self.data.reference)
        keys = self.data.prompt[usable] * len(self.data.generators) + self.data.generator[usable]
        return {divmod(int(k), len(self.data.generators)): usable[keys == k] for k in np.unique(keys)}

    def _judge(self, candidates: list[int]) -> Callable[[int, int], tuple[Doubles, float]]:
        """(probe, draw) → scores (C,), NaN where a candidate has no reference, and consistency."""
        setting = self.setting
        if setting.recipe in ("paper", "layer"):

            def by_nearest(i: int, draw: int) -> tuple[Doubles, float]:
                rows = self.references_of(i, draw, candidates)
                if not all(len(r) for r in rows):
                    return np.full(len(candidates), np.nan), np.nan
                values = recipe.nearest(self._probe[i], [self._reference[r] for r in rows])
                return values, float(values.max())

            return by_nearest

        spaces = {int(f): self._space(int(f), candidates) for f in np.unique(self.fold)}
        lent = self._lent(candidates, spaces) if setting.recipe == "together" else None

        def by_recipe(i: int, draw: int) -> tuple[Doubles, float]:
            whitening, reference, probe, known = spaces[int(self.fold[i])]
            rows = self.references_of(i, draw, candidates)
            references = [reference[r] for r in rows]
            if lent is not None:
                known = lent(i, draw)
            content = None
            if "centring" in setting.without:
                content = np.zeros(reference.shape[1])
            elif setting.references == 0:
                content = self._content(i, reference, candidates)
            if not (self.gallery or all(len(r) for r in rows)) or (content is None and not any(len(r) for r in rows)):
                return np.full(len(candidates), np.nan), np.nan
            values = recipe.scores(probe[i], references, known, whitening.energy, content)
            return values, self._consistency(probe[i], references, known, whitening)

        return by_recipe

    def _consistency(self, probe: Doubles, references: list[Doubles], known: Prior, whitening: Whitening) -> float:
        if not any(len(r) for r in references):
            return float("nan")
        return recipe.consistency(probe, references, None if "centring" in self.setting.without else known, whitening.energy)

    def _space(self, fold: int, candidates: list[int]) -> tuple[Whitening, Doubles, Doubles, Prior]:
        """Whitening, whitened references and probes, and prior, for probes of `fold`."""
        own = self.gallery and "own" not in self.setting.without
        names = [self.data.generators[g] for g in candidates]
        fit = None
        if self.gallery:
            train = np.flatnonzero(self.data.reference & (self.fold != fold) & np.isin(self.data.generator, candidates))
            position = np.searchsorted(candidates, self.data.generator[train])
            fit = Fit.of(self._reference[train], position, self.data.prompt[train], names)
        if "whitening" in self.setting.without:
            whitening = Whitening(np.zeros((self._reference.shape[1], 0)), np.zeros(0), 1.0)
        elif fit is not None and own:
            whitening = fit.whitening(self._constants, self._families)
        else:
            whitening = recipe.whitening(self._constants, families=self._families)
        reference = whitening(self._reference)
        probe = reference if self._probe is self._reference else whitening(self._probe)
        known = fit.prior(whitening, names) if fit is not None else recipe.no_gallery(len(candidates), reference.shape[1])
        return whitening, reference, probe, known

    def _lent(self, candidates: list[int], spaces: dict[int, tuple[Whitening, Doubles, Doubles, Prior]]) -> Callable[[int, int], Prior]:
        """What the resyntheses of the other captions say of the candidates."""
        reference = next(iter(spaces.values()))[1]
        prompts = np.unique(self.data.prompt[self.data.probe])
        groups = {int(p): int(self.data.group[self.data.prompt == p][0]) for p in prompts}

        @cache
        def cells(draw: int) -> dict[int, Doubles]:
            found = {}
            for p in prompts:
                rng = np.random.default_rng([self.setting.seed, draw, int(p), 0x70])
                rows = [rng.permutation(self._cell(int(p), g))[: self.setting.references] for g in candidates]
                if all(len(r) for r in rows):
                    found[int(p)] = np.stack([reference[r].mean(0) for r in rows])
            return found

        @cache
        def prior(draw: int, prompt: int) -> Prior:
            others = [p for p in cells(draw) if groups[p] != groups[prompt]]
            if self.setting.together is not None:
                rng = np.random.default_rng([self.setting.seed, draw, prompt, 0x71])
                others = list(rng.permutation(others)[: self.setting.together - 1])
            return recipe.lent([cells(draw)[int(p)] for p in others], len(candidates), reference.shape[1], self.setting.references)

        return lambda i, draw: prior(draw, int(self.data.prompt[i]))

    def _content(self, i: int, reference: Doubles, candidates: list[int]) -> Doubles | None:
        """Mean of the other pictures of a probe's prompt, whoever of the candidates made them."""
        same = self.data.reference & (self.data.prompt == self.data.prompt[i]) & np.isin(self.data.generator, candidates)
        same[i] = False
        return reference[same].mean(0) if same.any() else None


def _middle(sizes: Sequence[int]) -> slice:
    """Columns of the middle tap; taps of one size, as a transformer's are."""
    if len(set(sizes)) != 1:
        raise ConfigError("recipe layer compares one tap, and this extractor has none; use an extractor exported from an image encoder")
    middle = len(sizes) // 2
    return slice(middle * sizes[0], (middle + 1) * sizes[0])


def _constants(constants: Constants, setting: Setting) -> Constants:
    if "scaling" not in setting.without:
        return constants
    if "whitening" not in setting.without:
        raise ConfigError("--without scaling needs --without whitening too: the covariance is that of scaled features")
    none = np.zeros((len(constants.mean), 0))
    return Constants(np.zeros_like(constants.mean), np.ones_like(constants.scale), Moment(none, np.zeros(0)))
