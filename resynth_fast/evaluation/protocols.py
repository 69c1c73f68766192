"""Judgements of an evaluation, from features alone: references, gallery folds, recipes, unknown generators.

The references of a probe are drawn from the other pictures of its own prompt, which stand for its resyntheses. The gallery
consists of the pictures of *other* prompts, by folds, so that no verdict uses a prompt that is in the gallery.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError
from ..kernels.similarity import similarity
from ..kernels.topk import nearest_rows
from ..scoring.prior import Prior, batch_prior, no_gallery
from ..scoring.score import score_rows
from ..scoring.whitening import Constants
from ..types import Booleans, Doubles, Integers
from .config import EvaluationConfig
from .dataset import DatasetFeatures
from .spaces import Space, Spaces, folds

JUDGED_AT_ONCE = 256
"""Judgements per call of the kernel; their probes are copied."""
CACHED_DRAWS = 1 << 16
"""Number of cached draws of references, about 400 bytes each."""

Task = tuple[int, int, list[Integers]]
"""Row of a probe, draw, and the rows of each candidate's references."""
Judged = tuple[Integers, Doubles, Doubles]
"""(row of a probe, draw) (m, 2), scores (m, C), consistency (m,)."""


class NothingJudgedError(ConfigError):
    """Every probe lacks a reference of some candidate."""


@dataclass(frozen=True)
class Judgements:
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

    def only(self, rows: Booleans) -> Judgements:
        """The judgements of `rows` (m,)."""
        return replace(
            self,
            probe=self.probe[rows],
            draw=self.draw[rows],
            truth=self.truth[rows],
            scores=self.scores[rows],
            consistency=self.consistency[rows],
            fold=self.fold[rows],
        )


class ProtocolRunner:
    """Judges the probes of a dataset under one configuration."""

    def __init__(
        self,
        data: DatasetFeatures,
        constants: Constants,
        block_sizes: Sequence[int],
        config: EvaluationConfig,
        probes: DatasetFeatures | None = None,
        spaces: Spaces | None = None,
    ) -> None:
        """Prepare features and folds.

        Args:
            data: Features of the dataset.
            constants: The extractor's constants.
            block_sizes: Number of columns of each tap of the features.
            config: Recipe and references.
            probes: Other features of the same pictures (degraded), used for probes only.
            spaces: Spaces of the same data and constants, shared with other runners.

        Raises:
            ConfigError: The dataset or the extractor lacks something that the configuration needs.
        """
        if probes is not None and probes.dataset.files != data.dataset.files:
            raise ConfigError("the pictures changed while they were read; evaluate again when no program writes to the dataset")
        self._spaces = spaces or Spaces(data, constants)
        if unknown := set(config.leave_out) - set(constants.nuisance):
            families = ", ".join(constants.nuisance) or "none"
            raise ConfigError(f"--leave-out is {sorted(unknown)[0]!r}; the extractor's nuisance constants have {families}")
        self.data, self.config = data.dataset, config
        self.candidates = [int(g) for g in np.unique(self.data.generator[self.data.reference])]
        if len(self.candidates) < 2:
            raise ConfigError(f"{len(self.candidates)} of the dataset's generators have reference pictures; attribution needs at least two")
        self.fold = folds(self.data, config.seed)
        self._cached_draw = lru_cache(maxsize=CACHED_DRAWS)(
            self._draw
        )  # protocols that leave a candidate out repeat the draws of the others
        self._deep = data.features if data.last is None else data.last
        self._reference: npt.NDArray[Any]  # float32 for the cosines of the paper, float64 for the recipe
        self._probe: npt.NDArray[Any]
        if config.recipe == "paper":
            if data.last is None:
                raise ConfigError("recipe paper needs the extractor's last layer, which was not exported; export it again with --last")
            self._reference, self._probe = (np.asarray(d.last, np.float32) for d in (data, probes or data))
        elif config.recipe == "layer":
            block = _middle(block_sizes)
            self._reference, self._probe = (d.features[:, block].astype(np.float32) for d in (data, probes or data))
        else:
            self._reference = self._spaces.scaled(config)
            self._probe = self._reference if probes is None else self._spaces.scaled(config, probes)

    def gallery_per_candidate(self) -> int:
        """Number of gallery pictures of the candidate that has fewest, in the smallest fold, without the probe's references."""
        if self.config.policy != "resynthesised":
            return self.config.references
        if not self.config.gallery:
            return 0
        used = self.data.reference
        counts = [
            np.bincount(self.data.generator[used & (self.fold != f)], minlength=len(self.data.generators)) for f in np.unique(self.fold)
        ]
        return int(np.min(np.stack(counts)[:, self.candidates]))

    def gallery_at_most(self) -> int:
        """Maximum number of gallery pictures, of other prompts, that every candidate has for every probe."""
        return min(len(self._others(int(group), g)) for group in np.unique(self.data.group[self.data.probe]) for g in self.candidates)

    def references_at_most(self) -> int:
        """Maximum number of references that nine of ten cells have without the probe."""
        sizes = [len(rows) - int(self.data.probe[rows].any()) for rows in self._cells.values()]
        return int(np.quantile(sizes, 0.1, method="lower"))

    def judge(self, candidates: Sequence[int] | None = None, probes: Integers | None = None) -> Judgements:
        """Judge `probes` (rows; default: all probes) by `candidates` (default: all generators with references).

        Fits and galleries leave out generators that are not candidates. NothingJudgedError if no probe can be judged.
        """
        candidates = list(self.candidates if candidates is None else candidates)
        rows = np.flatnonzero(self.data.probe) if probes is None else probes
        parts = [rows[self.fold[rows] == fold] for fold in np.unique(self.fold[rows])] if self.config.gallery else [rows]
        pairs, scores, consistency = (np.concatenate(of) for of in zip(*(self._judge(part, candidates) for part in parts), strict=True))
        valid = np.flatnonzero(np.isfinite(scores).all(1))
        if not len(valid):
            raise NothingJudgedError("no probe has another picture of its prompt by every candidate; add pictures, or use --recipe default")
        valid = valid[np.lexsort(pairs[valid].T)]  # by draw, then by row
        index, draw = pairs[valid].T
        position = np.full(len(self.data.generators), -1)
        position[candidates] = np.arange(len(candidates))
        truth = position[self.data.generator[index]]
        return Judgements(index, draw, truth, scores[valid], consistency[valid], self.fold[index])

    def references_of(self, probe: int, draw: int, candidates: Sequence[int]) -> list[Integers]:
        """Rows of each candidate's references for a probe, drawn without the probe; independent of the order of calls.

        The missing probe must not reveal its generator: if it makes its own cell the smaller one, one picture less is drawn
        from the other cells too.
        """
        if self.config.references == 0:
            return [np.zeros(0, np.int64) for _ in candidates]
        if self.config.policy == "aligned":
            nearest_of = self._aligned(int(self.data.group[probe]))[probe]
            return [nearest_of[g][nearest_of[g] >= 0] for g in candidates]
        return [self._cached_draw(probe, draw, g) for g in candidates]

    def _draw(self, probe: int, draw: int, generator: int) -> Integers:
        most = self.config.references
        rng = np.random.default_rng([self.config.seed, draw, probe, generator])
        if self.config.policy == "arbitrary":
            others = self._others(int(self.data.group[probe]), generator)
            return rng.choice(others, most, replace=False, shuffle=False)
        cell = self._cell(int(self.data.prompt[probe]), generator)
        others = cell[cell != probe]
        if self.data.reference[probe] and len(others) == len(cell):
            most = min(most, max(1, len(cell) - 1))
        return rng.permutation(others)[:most]

    def _cell(self, prompt: int, generator: int) -> Integers:
        return self._cells.get((prompt, generator), np.zeros(0, np.int64))

    @cached_property
    def _cells(self) -> dict[tuple[int, int], Integers]:
        """Reference rows by prompt and generator."""
        usable = np.flatnonzero(self.data.reference)
        keys = self.data.prompt[usable] * len(self.data.generators) + self.data.generator[usable]
        order = np.argsort(keys, kind="stable")
        values, starts = np.unique(keys[order], return_index=True)
        parts = np.split(usable[order], starts[1:])
        return {divmod(int(k), len(self.data.generators)): rows for k, rows in zip(values, parts, strict=True)}

    def _others(self, group: int, generator: int) -> Integers:
        """Gallery rows of a generator: those of other groups."""
        rows = self._rows_of_generator[generator]
        others: Integers = rows[self.data.group[rows] != group]
        return others

    @cached_property
    def _rows_of_generator(self) -> list[Integers]:
        """Reference rows by generator."""
        return [np.flatnonzero(self.data.reference & (self.data.generator == g)) for g in range(len(self.data.generators))]

    @cached_property
    def _nearest(self) -> dict[int, dict[int, Integers]]:
        """Results of `_aligned` by group, computed on demand."""
        return {}

    @cached_property
    def _directions(self) -> Doubles:
        """The deepest features as directions, to find pictures of similar content."""
        deep = self._deep.astype(np.float64)
        deep -= deep.mean(0)
        deep /= np.linalg.norm(deep, axis=1, keepdims=True) + 1e-12
        return deep

    def _aligned(self, group: int) -> dict[int, Integers]:
        """By row of a group, the gallery rows (generators, references) of nearest content; -1 where a generator has fewer."""
        if group not in self._nearest:
            rows = np.flatnonzero(self.data.group == group)
            usable = self.data.reference & (self.data.group != group)
            generator = np.where(usable, self.data.generator, -1).astype(np.int32)
            count, generators = self.config.references, len(self.data.generators)
            nearest = nearest_rows(self._directions[rows], self._directions, count, groups=generator, group_count=generators)
            self._nearest[group] = dict(zip(rows.tolist(), nearest, strict=True))
        return self._nearest[group]

    def _judge(self, probes: Integers, candidates: list[int]) -> Judged:
        """Judgements of the probes of one fold, as far as they can be judged."""
        judge = self._nearest_scores if self.config.recipe in ("paper", "layer") else self._recipe_scores(probes, candidates)
        tasks = [(int(i), draw) for draw in range(self.config.draws) for i in probes]
        # Tasks of one draw and prompt are adjacent, since recipe together has one prior for them.
        tasks.sort(key=lambda pair: (pair[1], self.data.prompt[pair[0]]))
        chunks = [tasks[first : first + JUDGED_AT_ONCE] for first in range(0, len(tasks), JUDGED_AT_ONCE)]
        parts = [judge([(*pair, self.references_of(*pair, candidates)) for pair in chunk]) for chunk in chunks]
        pairs, scores, consistency = (np.concatenate(of) for of in zip(*parts, strict=True))
        return pairs, scores, consistency

    def _nearest_scores(self, tasks: Sequence[Task]) -> Judged:
        """Judgements by the paper's score, the cosine of a candidate's nearest reference; the best one is the consistency."""
        candidates = len(tasks[0][2])
        tasks = [task for task in tasks if all(map(len, task[2]))]
        if not tasks:
            return _nothing(candidates)
        rows, offsets = _ragged(tasks)
        index = np.array([task[0] for task in tasks])
        scores = similarity(self._probe[index], self._reference[rows], offsets).scores.astype(np.float64)
        return _pairs(tasks), scores, scores.max(1)

    def _recipe_scores(self, probes: Integers, candidates: list[int]) -> Callable[[Sequence[Task]], Judged]:
        """A function that judges tasks by the score of the recipe, in the space of the probes' fold."""
        space = self._spaces.get(self.config, int(self.fold[probes[0]]), candidates)
        points, row = space.points, space.row
        if self._probe is not self._reference:
            points, row = space.whitening(self._probe[probes]), np.zeros(len(self.data), np.int64)
            row[probes] = np.arange(len(probes))
        dimension = points.shape[1]
        gallery_prior = space.prior or no_gallery(len(candidates), dimension)
        prior_of = self._batch_priors(space, candidates) if self.config.recipe == "together" else lambda draw, prompt: gallery_prior

        def content_of(i: int) -> Doubles | None:
            if "centring" in self.config.without:
                return np.zeros(dimension)
            return self._content(i, space, candidates) if self.config.references == 0 else None

        def judge(tasks: Sequence[Task]) -> Judged:
            tasks = [task for task in tasks if all(map(len, task[2])) or space.prior]
            contents = [content_of(task[0]) for task in tasks]
            judged = [k for k, task in enumerate(tasks) if contents[k] is not None or any(map(len, task[2]))]
            if not judged:
                return _nothing(len(candidates))
            tasks, contents = [tasks[k] for k in judged], [contents[k] for k in judged]
            rows, offsets = _ragged(tasks)
            content = None if contents[0] is None else np.array(contents)
            priors = [prior_of(draw, int(self.data.prompt[i])) for i, draw, _ in tasks]
            own = points[row[[i for i, *_ in tasks]]][:, None]
            within_trace = space.whitening.within_trace
            scores, consistency = score_rows(own, space.points, space.row[rows], offsets, priors, within_trace, content)
            return _pairs(tasks), scores[:, 0], consistency[:, 0]

        return judge

    def captions_together(self) -> int:
        """Number of captions whose resyntheses are used for a verdict, the probe's own included."""
        if self.config.recipe != "together":
            return 1
        every = len(self._complete(self.candidates))
        return every if self.config.together is None else min(every, self.config.together)

    def _complete(self, candidates: Sequence[int]) -> dict[int, int]:
        """Prompts of probes for which every candidate has a picture, and their groups."""
        prompts, first = np.unique(self.data.prompt[self.data.probe], return_index=True)
        groups = self.data.group[self.data.probe][first]
        return {int(p): int(q) for p, q in zip(prompts, groups, strict=True) if all(len(self._cell(int(p), g)) for g in candidates)}

    def _batch_priors(self, space: Space, candidates: list[int]) -> Callable[[int, int], Prior]:
        """A function (draw, prompt) → prior of the candidates from the resyntheses of the other captions."""
        config, groups = self.config, self._complete(candidates)

        def cell(draw: int, prompt: int) -> Doubles:
            rng = np.random.default_rng([config.seed, draw, prompt, 0x70])
            rows = [rng.permutation(self._cell(prompt, g))[: config.references] for g in candidates]
            means = np.stack([space(r).mean(0) for r in rows])
            centred: Doubles = means - means.mean(0)
            return centred

        @lru_cache(maxsize=1)
        def sums(draw: int) -> tuple[Doubles, dict[int, Doubles]]:
            """Sums of cells over all captions and over each group; their difference gives the mean over the other groups."""
            by_group: dict[int, Doubles] = {}
            for p, q in groups.items():
                by_group[q] = by_group.get(q, 0.0) + cell(draw, p)
            return np.sum(list(by_group.values()), axis=0), by_group

        @lru_cache(maxsize=16)
        def prior(draw: int, prompt: int) -> Prior:
            own = self._group_of[prompt]
            others = [p for p, q in groups.items() if q != own]
            if config.together is not None:
                rng = np.random.default_rng([config.seed, draw, prompt, 0x71])
                others = [int(p) for p in rng.permutation(others)[: config.together - 1]]
                return batch_prior([cell(draw, p) for p in others], len(candidates), space.points.shape[1], config.references)
            if not others:
                return no_gallery(len(candidates), space.points.shape[1])
            total, by_group = sums(draw)
            mean = (total - by_group.get(own, 0.0)) / len(others)
            prior_of_mean = batch_prior([mean], len(candidates), space.points.shape[1], config.references)
            return replace(prior_of_mean, prompts=np.full(len(candidates), float(len(others))))

        return prior

    @cached_property
    def _group_of(self) -> dict[int, int]:
        return dict(zip(self.data.prompt.tolist(), self.data.group.tolist(), strict=True))

    def _content(self, i: int, space: Space, candidates: list[int]) -> Doubles | None:
        """Mean of the other pictures of a probe's prompt by any candidate."""
        same = self.data.reference & (self.data.prompt == self.data.prompt[i]) & np.isin(self.data.generator, candidates)
        same[i] = False
        return space(np.flatnonzero(same)).mean(0) if same.any() else None


def _nothing(candidates: int) -> Judged:
    return np.zeros((0, 2), np.int64), np.zeros((0, candidates)), np.zeros(0)


def _pairs(tasks: Sequence[Task]) -> Integers:
    return np.array([task[:2] for task in tasks])


def _ragged(tasks: Sequence[Task]) -> tuple[Integers, Integers]:
    """Rows of all references, concatenated, and the offsets of the groups, with the end of the last one."""
    groups = [rows for *_, references in tasks for rows in references]
    return np.concatenate(groups), np.cumsum([0, *map(len, groups)])


def _middle(sizes: Sequence[int]) -> slice:
    """Columns of the middle tap; all taps must have the same size, as in a transformer."""
    if len(set(sizes)) != 1:
        raise ConfigError(
            "recipe layer compares one of several equal taps, which this extractor lacks; use an extractor exported from an image encoder"
        )
    middle = len(sizes) // 2
    return slice(middle * sizes[0], (middle + 1) * sizes[0])
