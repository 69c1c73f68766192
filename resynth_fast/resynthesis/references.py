"""Draws each probe's references: all of them at once, or round by round where that may end early; what was made before is looked up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np

from ..arrays import Doubles
from ..errors import ConfigError
from ..extractors.space import FeatureSpace
from ..images import perturbations
from ..options import LOOK_UP, Options
from ..timing import StageTimer
from ..types import Request, Resynthesis
from .executor import Executor
from .race import REACH, Race
from .sources import ReferenceSource

if TYPE_CHECKING:
    from ..gallery.cache import Features, ResynthesisCache


@dataclass(frozen=True, slots=True)
class ProbeReferences:
    """One probe's resyntheses, by candidate, and their points."""

    resyntheses: Mapping[str, tuple[Resynthesis, ...]]
    references: list[Doubles]
    """C arrays (K, d), in the order of the candidates"""
    stopped_by: str = ""
    """What ended the drawing before a decision, "" if nothing did."""
    looked_up: int = 0
    """Of the resyntheses, those that the gallery held."""
    alike: tuple[str, ...] = ()
    """Candidates whose references are gallery pictures of like content, for want of resyntheses."""
    forecast_s: float | None = None
    """What making all that the gallery lacks was thought to take, for all probes of the call."""

    @property
    def most(self) -> int:
        """The largest number of references of a candidate."""
        return max(map(len, self.references), default=0)

    @property
    def complete(self) -> bool:
        """Whether every candidate has drawn: one that has not can be neither named nor excluded."""
        return all(map(len, self.references))

    @property
    def warnings(self) -> tuple[str, ...]:
        if self.alike:
            return (f"no resynthesis of the caption by {', '.join(self.alike)}: judged by gallery pictures of like content, uncalibrated",)
        if not self.stopped_by:
            return ()
        missing = [name for name, made in self.resyntheses.items() if not made]
        untried = f"; never drawn, and so not excluded: {', '.join(missing)}" if missing else ""
        return (f"cut short by {self.stopped_by}, before the candidates left were told apart{untried}",)


class ReferenceBuilder:
    """The references of an attributor's probes."""

    def __init__(self, executor: Executor, space: FeatureSpace, options: Options, cache: ResynthesisCache | None = None) -> None:
        self.executor = executor
        self.space = space
        self.options = options
        self.cache = cache

    def __call__(
        self, captions: Sequence[str], points: Sequence[Doubles], timers: Mapping[str, StageTimer], deadline: float | None = None
    ) -> list[ProbeReferences]:
        """For each probe (d,), described in the time of `timers`; ends before `deadline`, a time of `time.monotonic`. DeadlineError."""
        names, seeds = tuple(self.executor.candidates), self.options.seeds
        features_s = timers["features"].ms / 1000 / (len(points) * (1 + len(perturbations.MILD)))
        supply = ReferenceSource(self.executor, self.space, self.cache, self.options.policy, timers, deadline, features_s)
        cuts = [""] * len(captions)
        if self.options.limited:
            races = self.race()(captions, points, [self.space.prior(names)] * len(points), supply)
            cuts = [race.stopped_by for race in races]
            asked = [
                {name: [Request(name, caption, seed) for seed in seeds[:count]] for name, count in zip(names, race.counts, strict=True)}
                for caption, race in zip(captions, races, strict=True)
            ]
        else:
            asked = [{name: [Request(name, caption, seed) for seed in seeds] for name in names} for caption in captions]
            supply([request for each in asked for requests in each.values() for request in requests])
        return [self._drawn(each, supply, cut) for each, cut in zip(asked, cuts, strict=True)]

    def fill_from_gallery(
        self, drawn: Sequence[ProbeReferences], features: Sequence[Features], pictures: Sequence[str]
    ) -> list[ProbeReferences]:
        """Where nothing may be made: candidates without a resynthesis take the gallery's pictures most like each probe (d,).

        `pictures`: the SHA-256 of each probe.
        """
        lacking = [i for i, found in enumerate(drawn) if not found.complete]
        if self.cache is None or self.options.policy != LOOK_UP or not lacking:
            return list(drawn)
        queries, own = np.stack([features[i] for i in lacking]), [pictures[i] for i in lacking]
        alike = self.cache.similar_content(queries, self.options.references, own, self.space.extractor.device)
        filled = dict(zip(lacking, alike, strict=True))
        return [self._filled(found, filled[i]) if i in filled else found for i, found in enumerate(drawn)]

    def _filled(self, drawn: ProbeReferences, alike: Mapping[str, Features]) -> ProbeReferences:
        names = list(drawn.resyntheses)
        lacking = [name for name, found in zip(names, drawn.references, strict=True) if not len(found)]
        if none := [name for name in lacking if name not in alike]:
            raise ConfigError(f"the gallery has no picture by {none[0]}; add some (resynth gallery add), or let it draw with --policy both")
        pairs = zip(names, drawn.references, strict=True)
        return replace(drawn, references=[r if len(r) else self.space.points(alike[name]) for name, r in pairs], alike=tuple(lacking))

    def _drawn(self, asked: Mapping[str, Sequence[Request]], supply: ReferenceSource, cut: str) -> ProbeReferences:
        got = {name: [request for request in requests if request in supply.points] for name, requests in asked.items()}
        nothing = np.zeros((0, len(self.space.constants.mean)))
        return ProbeReferences(
            {name: tuple(Resynthesis(r.seed, supply.pictures[r]) for r in requests) for name, requests in got.items()},
            [np.stack([supply.points[r] for r in requests]) if requests else nothing for requests in got.values()],
            cut,
            looked_up=sum(request in supply.looked_up for requests in got.values() for request in requests),
            forecast_s=supply.forecast_s if self.cache else None,
        )

    def race(self) -> Race:
        """The rules; without racing nobody is ever out, and only pictures or time may end."""
        costs = self.executor.costs()
        return Race(
            names=tuple(costs),
            seeds=self.options.seeds,
            within_trace=self.space.whitening.within_trace,
            calibrated=lambda count: self.space.calibration.at(count, self.options.steps),
            costs=np.array(list(costs.values())),
            reach=REACH if self.options.race else inf,
            max_pictures=self.options.max_pictures,
        )

    def provenance(self, drawn: ProbeReferences) -> dict[str, Any]:
        """How many pictures there are and why no more, where there may be fewer than asked for; and what a gallery gave of them."""
        said: dict[str, Any] = {}
        pictures = sum(map(len, drawn.resyntheses.values()))
        if self.options.limited:
            said["race"] = {
                "reach": REACH if self.options.race else None,
                "references_at_most": self.options.references,
                "pictures": pictures,
                "cut": drawn.stopped_by or None,
            }
        if drawn.forecast_s is not None:
            said["gallery"] = {
                "policy": self.options.policy,
                "looked_up": drawn.looked_up,
                "made": pictures - drawn.looked_up,
                "alike": list(drawn.alike),
                "forecast_s": round(drawn.forecast_s, 3),
            }
        return said
