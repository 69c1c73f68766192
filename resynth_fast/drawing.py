"""Draws each probe's references: all of them at once, or round by round where that may end early."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np

from . import perturbations
from .executor import Executor
from .extractors.space import FeatureSpace
from .race import REACH, Race
from .recipe import Doubles
from .stopwatch import Stopwatch
from .types import Pixels, Request, Resynthesis

if TYPE_CHECKING:
    from .attributor import Options


@dataclass(frozen=True, slots=True)
class Drawn:
    """One probe's resyntheses, by candidate, and their points."""

    resyntheses: Mapping[str, tuple[Resynthesis, ...]]
    references: list[Doubles]
    """C arrays (K, d), in the order of the candidates"""
    cut: str = ""
    """What ended the drawing before a decision, "" if nothing did."""

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
        if not self.cut:
            return ()
        missing = [name for name, made in self.resyntheses.items() if not made]
        untried = f"; never drawn, and so not excluded: {', '.join(missing)}" if missing else ""
        return (f"cut short by {self.cut}, before the candidates left were told apart{untried}",)


class Drawing:
    """The references of an attributor's probes."""

    def __init__(self, executor: Executor, space: FeatureSpace, options: Options) -> None:
        self.executor = executor
        self.space = space
        self.options = options

    def __call__(
        self, captions: Sequence[str], points: Sequence[Doubles], watches: Mapping[str, Stopwatch], until: float | None = None
    ) -> list[Drawn]:
        """For each probe (d,), described in the time of `watches`; ends before `until`, a time of `time.monotonic`. DeadlineError."""
        names, seeds = tuple(self.executor.candidates), self.options.seeds
        pictures: dict[Request, Pixels] = {}
        made: dict[Request, Doubles] = {}
        describe_s = watches["features"].ms / 1000 / (len(points) * (1 + len(perturbations.MILD)))

        def obtain(wanted: Sequence[Request]) -> Mapping[Request, Doubles]:
            new = [request for request in wanted if request not in made]
            with watches["generate"]:
                found = self.executor(new, until=None if until is None else until - describe_s * len(new))
            with watches["features"]:
                if found:
                    made.update(zip(found, self.space(list(found.values())), strict=True))
            pictures.update(found)
            return made

        if not self.options.limited:
            obtain([Request(name, caption, seed) for caption in captions for name in names for seed in seeds])
            taken, cuts = [[len(seeds)] * len(names)] * len(captions), [""] * len(captions)
        else:
            races = self.race()(captions, points, [self.space.prior(names)] * len(points), obtain)
            taken, cuts = [race.counts.tolist() for race in races], [race.cut for race in races]
        nothing = np.zeros((0, len(self.space.constants.mean)))
        result = []
        for caption, counts, cut in zip(captions, taken, cuts, strict=True):
            asked = {name: [Request(name, caption, seed) for seed in seeds[:count]] for name, count in zip(names, counts, strict=True)}
            result.append(
                Drawn(
                    {name: tuple(Resynthesis(r.seed, pictures[r]) for r in requests) for name, requests in asked.items()},
                    [np.stack([made[r] for r in requests]) if requests else nothing for requests in asked.values()],
                    cut,
                )
            )
        return result

    def race(self) -> Race:
        """The rules; without racing nobody is ever out, and only pictures or time may end."""
        costs = self.executor.costs()
        return Race(
            names=tuple(costs),
            seeds=self.options.seeds,
            energy=self.space.whitening.energy,
            temperature=lambda count: self.space.calibration.at(count, self.options.steps).temperature,
            costs=np.array(list(costs.values())),
            reach=REACH if self.options.race else inf,
            max_pictures=self.options.max_pictures,
        )

    def provenance(self, drawn: Drawn) -> dict[str, Any]:
        """How many pictures there are and why no more, where there may be fewer than asked for."""
        if not self.options.limited:
            return {}
        return {
            "race": {
                "reach": REACH if self.options.race else None,
                "references_at_most": self.options.references,
                "pictures": sum(map(len, drawn.references)),
                "cut": drawn.cut or None,
            }
        }
