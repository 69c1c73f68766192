"""How probes are judged in an evaluation: references, gallery folds, recipes, unknown generators. No pictures, only features.

The references of a probe are pictures of its own prompt, drawn without the probe: its resyntheses. The gallery is made
of the *other* prompts, by folds, so that no verdict rests on a prompt that the gallery has seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np

from ..arrays import Booleans, Doubles, Integers
from ..errors import ConfigError
from ..kernels.similarity import similarity
from ..kernels.topk import nearest_rows
from ..scoring.prior import Prior, batch_prior, no_gallery
from ..scoring.score import score_rows
from ..scoring.whitening import Constants
from .config import EvaluationConfig
from .dataset import DatasetFeatures
from .spaces import Space, Spaces, folds

JUDGED_AT_ONCE = 256
"""Judgements of one call of the kernel, whose probes are copied."""
DRAWS_KEPT = 1 << 16
"""Draws of references that are remembered, some 400 bytes each."""

Asked = tuple[int, int, list[Integers]]
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
    """A described dataset under one setting; `judge` does the work."""

    def __init__(
        self,
        data: DatasetFeatures,
        constants: Constants,
        block_sizes: Sequence[int],
        setting: EvaluationConfig,
        probes: DatasetFeatures | None = None,
        spaces: Spaces | None = None,
    ) -> None:
        """`block_sizes`: columns of each tap; `probes`: other features of the same pictures (degraded), for the probe's side alone;
        `spaces`: those of the same data and constants, to share."""
        if probes is not None and probes.dataset.files != data.dataset.files:
            raise ConfigError("the pictures changed while they were read; evaluate again when nobody writes to the dataset")
        self._spaces = spaces or Spaces(data, constants)
        if unknown := set(setting.leave_out) - set(constants.nuisance):
            known = ", ".join(constants.nuisance) or "none"
            raise ConfigError(f"--leave-out is {sorted(unknown)[0]!r}; the extractor's nuisance constants have {known}")
        self.data, self.setting = data.dataset, setting
        self.candidates = [int(g) for g in np.unique(self.data.generator[self.data.reference])]
        if len(self.candidates) < 2:
            raise ConfigError(
                f"{len(self.candidates)} of the dataset's generators have pictures to compare with; attribution needs two at least"
            )
        self.fold = folds(self.data, setting.seed)
        self._drawn = lru_cache(maxsize=DRAWS_KEPT)(self._draw)  # leaving candidates out asks for the same again
        self._deep = data.features if data.last is None else data.last
        if setting.recipe == "paper":
            if data.last is None:
                raise ConfigError(
                    "the extractor was exported without its own last layer, which the paper's score is made of; export it again with --last"
                )
            self._reference, self._probe = (np.asarray(d.last, np.float32) for d in (data, probes or data))
        elif setting.recipe == "layer":
            block = _middle(block_sizes)
            self._reference, self._probe = (d.features[:, block].astype(np.float32) for d in (data, probes or data))
        else:
            self._reference = self._spaces.scaled(setting)
            self._probe = self._reference if probes is None else self._spaces.scaled(setting, probes)

    def gallery_per_candidate(self) -> int:
        """Pictures of the scarcest candidate in the smallest gallery, beside the probe's own references."""
        if self.setting.policy != "resynthesised":
            return self.setting.references
        if not self.setting.gallery:
            return 0
        used = self.data.reference
        counts = [
            np.bincount(self.data.generator[used & (self.fold != f)], minlength=len(self.data.generators)) for f in np.unique(self.fold)
        ]
        return int(np.min(np.stack(counts)[:, self.candidates]))

    def gallery_at_most(self) -> int:
        """How many gallery pictures every candidate has for every probe: those of other prompts."""
        return min(len(self._others(int(group), g)) for group in np.unique(self.data.group[self.data.probe]) for g in self.candidates)

    def references_at_most(self) -> int:
        """How many resyntheses nine of ten cells can give, the probe not among them."""
        sizes = [len(rows) - int(self.data.probe[rows].any()) for rows in self._cells.values()]
        return int(np.quantile(sizes, 0.1, method="lower"))

    def judge(self, candidates: Sequence[int] | None = None, probes: Integers | None = None) -> Judgements:
        """Judge `probes` (rows; default all that may be asked about) by `candidates` (default all that have references).

        A generator that is no candidate is in no fit and in no gallery.
        """
        candidates = list(self.candidates if candidates is None else candidates)
        rows = np.flatnonzero(self.data.probe) if probes is None else probes
        parts = [rows[self.fold[rows] == fold] for fold in np.unique(self.fold[rows])] if self.setting.gallery else [rows]
        pairs, scores, consistency = (np.concatenate(of) for of in zip(*(self._judge(part, candidates) for part in parts), strict=True))
        kept = np.flatnonzero(np.isfinite(scores).all(1))
        if not len(kept):
            raise NothingJudgedError("no probe has a reference of every candidate beside itself; add pictures, or use --recipe default")
        kept = kept[np.lexsort(pairs[kept].T)]  # by draw, then by row
        index, draw = pairs[kept].T
        position = np.full(len(self.data.generators), -1)
        position[candidates] = np.arange(len(candidates))
        truth = position[self.data.generator[index]]
        return Judgements(index, draw, truth, scores[kept], consistency[kept], self.fold[index])

    def references_of(self, probe: int, draw: int, candidates: Sequence[int]) -> list[Integers]:
        """Rows of each candidate's references of a probe, drawn without it; the same for any order of asking.

        The probe's own absence must not show: where it would make its generator's cell the smaller one, the other cells
        give one picture less too.
        """
        if self.setting.references == 0:
            return [np.zeros(0, np.int64) for _ in candidates]
        if self.setting.policy == "aligned":
            nearest_of = self._aligned(int(self.data.group[probe]))[probe]
            return [nearest_of[g][nearest_of[g] >= 0] for g in candidates]
        return [self._drawn(probe, draw, g) for g in candidates]

    def _draw(self, probe: int, draw: int, generator: int) -> Integers:
        most = self.setting.references
        rng = np.random.default_rng([self.setting.seed, draw, probe, generator])
        if self.setting.policy == "arbitrary":
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
        """Gallery rows of a generator: prompts of other groups."""
        rows = self._made[generator]
        others: Integers = rows[self.data.group[rows] != group]
        return others

    @cached_property
    def _made(self) -> list[Integers]:
        """Reference rows by generator."""
        return [np.flatnonzero(self.data.reference & (self.data.generator == g)) for g in range(len(self.data.generators))]

    @cached_property
    def _nearest(self) -> dict[int, dict[int, Integers]]:
        """See `_aligned`, by group, as far as they were asked for."""
        return {}

    @cached_property
    def _directions(self) -> Doubles:
        """The deepest features as directions, to find pictures of like content."""
        deep = self._deep.astype(np.float64)
        deep -= deep.mean(0)
        deep /= np.linalg.norm(deep, axis=1, keepdims=True) + 1e-12
        return deep

    def _aligned(self, group: int) -> dict[int, Integers]:
        """By row of a group, the gallery rows (generators, references) nearest to its content; -1 where there are fewer."""
        if group not in self._nearest:
            rows = np.flatnonzero(self.data.group == group)
            usable = self.data.reference & (self.data.group != group)
            generator = np.where(usable, self.data.generator, -1).astype(np.int32)
            count, generators = self.setting.references, len(self.data.generators)
            found = nearest_rows(self._directions[rows], self._directions, count, groups=generator, group_count=generators)
            self._nearest[group] = dict(zip(rows.tolist(), found, strict=True))
        return self._nearest[group]

    def _judge(self, probes: Integers, candidates: list[int]) -> Judged:
        """(row of a probe, draw) (m, 2), scores (m, C) and consistency (m,) of what can be judged; `probes` are of one gallery."""
        judge = self._nearest_scores if self.setting.recipe in ("paper", "layer") else self._recipe_scores(probes, candidates)
        asked = [(int(i), draw) for draw in range(self.setting.draws) for i in probes]
        # Those of one draw and prompt are together: recipe together has one prior for them.
        asked.sort(key=lambda pair: (pair[1], self.data.prompt[pair[0]]))
        chunks = [asked[first : first + JUDGED_AT_ONCE] for first in range(0, len(asked), JUDGED_AT_ONCE)]
        parts = [judge([(*pair, self.references_of(*pair, candidates)) for pair in chunk]) for chunk in chunks]
        pairs, scores, consistency = (np.concatenate(of) for of in zip(*parts, strict=True))
        return pairs, scores, consistency

    def _nearest_scores(self, asked: Sequence[Asked]) -> Judged:
        """By the paper's score: a candidate's nearest reference, the best of which is the consistency."""
        candidates = len(asked[0][2])
        asked = [row for row in asked if all(map(len, row[2]))]
        if not asked:
            return _nothing(candidates)
        rows, offsets = _ragged(asked)
        index = np.array([row[0] for row in asked])
        scores = similarity(self._probe[index], self._reference[rows], offsets).scores.astype(np.float64)
        return _pairs(asked), scores, scores.max(1)

    def _recipe_scores(self, probes: Integers, candidates: list[int]) -> Callable[[Sequence[Asked]], Judged]:
        """By the recipe's own score, in the space of the probes' gallery."""
        space = self._spaces.get(self.setting, int(self.fold[probes[0]]), candidates)
        points, place = space.points, space.place
        if self._probe is not self._reference:
            points, place = space.whitening(self._probe[probes]), np.zeros(len(self.data), np.int64)
            place[probes] = np.arange(len(probes))
        dimension = points.shape[1]
        known = space.prior or no_gallery(len(candidates), dimension)
        lent = self._lent(space, candidates) if self.setting.recipe == "together" else lambda draw, prompt: known

        def content_of(i: int) -> Doubles | None:
            if "centring" in self.setting.without:
                return np.zeros(dimension)
            return self._content(i, space, candidates) if self.setting.references == 0 else None

        def judge(asked: Sequence[Asked]) -> Judged:
            asked = [row for row in asked if all(map(len, row[2])) or space.prior]
            contents = [content_of(row[0]) for row in asked]
            judged = [k for k, row in enumerate(asked) if contents[k] is not None or any(map(len, row[2]))]
            if not judged:
                return _nothing(len(candidates))
            asked, contents = [asked[k] for k in judged], [contents[k] for k in judged]
            rows, offsets = _ragged(asked)
            content = None if contents[0] is None else np.array(contents)
            priors = [lent(draw, int(self.data.prompt[i])) for i, draw, _ in asked]
            own = points[place[[i for i, *_ in asked]]][:, None]
            within_trace = space.whitening.within_trace
            scores, consistency = score_rows(own, space.points, space.place[rows], offsets, priors, within_trace, content)
            return _pairs(asked), scores[:, 0], consistency[:, 0]

        return judge

    def captions_together(self) -> int:
        """How many captions' resyntheses speak in a verdict, the probe's own included."""
        if self.setting.recipe != "together":
            return 1
        every = len(self._complete(self.candidates))
        return every if self.setting.together is None else min(every, self.setting.together)

    def _complete(self, candidates: Sequence[int]) -> dict[int, int]:
        """Prompts that are asked about and of which every candidate has a picture, and their groups."""
        prompts, first = np.unique(self.data.prompt[self.data.probe], return_index=True)
        groups = self.data.group[self.data.probe][first]
        return {int(p): int(q) for p, q in zip(prompts, groups, strict=True) if all(len(self._cell(int(p), g)) for g in candidates)}

    def _lent(self, space: Space, candidates: list[int]) -> Callable[[int, int], Prior]:
        """(draw, prompt) → what the resyntheses of the other captions say of the candidates."""
        setting, groups = self.setting, self._complete(candidates)

        def cell(draw: int, prompt: int) -> Doubles:
            rng = np.random.default_rng([setting.seed, draw, prompt, 0x70])
            rows = [rng.permutation(self._cell(prompt, g))[: setting.references] for g in candidates]
            means = np.stack([space(r).mean(0) for r in rows])
            centred: Doubles = means - means.mean(0)
            return centred

        @lru_cache(maxsize=1)
        def sums(draw: int) -> tuple[Doubles, dict[int, Doubles]]:
            """Of all captions' cells, and of each group's: a mean over the other groups is a difference."""
            by_group: dict[int, Doubles] = {}
            for p, q in groups.items():
                by_group[q] = by_group.get(q, 0.0) + cell(draw, p)
            return np.sum(list(by_group.values()), axis=0), by_group

        @lru_cache(maxsize=16)
        def prior(draw: int, prompt: int) -> Prior:
            own = self._group_of[prompt]
            others = [p for p, q in groups.items() if q != own]
            if setting.together is not None:
                rng = np.random.default_rng([setting.seed, draw, prompt, 0x71])
                others = [int(p) for p in rng.permutation(others)[: setting.together - 1]]
                return batch_prior([cell(draw, p) for p in others], len(candidates), space.points.shape[1], setting.references)
            if not others:
                return no_gallery(len(candidates), space.points.shape[1])
            total, by_group = sums(draw)
            mean = (total - by_group.get(own, 0.0)) / len(others)
            known = batch_prior([mean], len(candidates), space.points.shape[1], setting.references)
            return replace(known, prompts=np.full(len(candidates), float(len(others))))

        return prior

    @cached_property
    def _group_of(self) -> dict[int, int]:
        return dict(zip(self.data.prompt.tolist(), self.data.group.tolist(), strict=True))

    def _content(self, i: int, space: Space, candidates: list[int]) -> Doubles | None:
        """Mean of the other pictures of a probe's prompt, whoever of the candidates made them."""
        same = self.data.reference & (self.data.prompt == self.data.prompt[i]) & np.isin(self.data.generator, candidates)
        same[i] = False
        return space(np.flatnonzero(same)).mean(0) if same.any() else None


def _nothing(candidates: int) -> Judged:
    return np.zeros((0, 2), np.int64), np.zeros((0, candidates)), np.zeros(0)


def _pairs(asked: Sequence[Asked]) -> Integers:
    return np.array([row[:2] for row in asked])


def _ragged(asked: Sequence[Asked]) -> tuple[Integers, Integers]:
    """All references' rows one after another, and where each group begins and the last ends."""
    groups = [rows for *_, references in asked for rows in references]
    return np.concatenate(groups), np.cumsum([0, *map(len, groups)])


def _middle(sizes: Sequence[int]) -> slice:
    """Columns of the middle tap; taps of one size, as a transformer's are."""
    if len(set(sizes)) != 1:
        raise ConfigError("recipe layer compares one tap, and this extractor has none; use an extractor exported from an image encoder")
    middle = len(sizes) // 2
    return slice(middle * sizes[0], (middle + 1) * sizes[0])
