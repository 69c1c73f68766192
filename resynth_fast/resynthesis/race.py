"""Racing: every candidate draws once; then only the leader and who is likeliest to overtake it, while anybody may.

LUCB (Kalyanakrishnan, Tewari, Auer & Stone, PAC Subset Selection in Stochastic Multi-armed Bandits, ICML 2012) for one arm,
with bounds from the recipe's own variances: who contends is asked anew in every round, so nobody is out for ever. A probe
that is clearly like nobody's picture ends its race: what would be told apart is not the question. All that is drawn
counts: the content is the mean over all candidates, whoever still draws, so that those do not pull it towards themselves;
and references of unequal number are weighed by the score itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..arrays import Booleans, Doubles, Integers
from ..errors import DeadlineError
from ..scoring.calibration import CalibrationPoint
from ..scoring.prior import Prior, remaining_variance
from ..scoring.score import score
from ..types import Request

Fetch = Callable[[Sequence[Request]], Mapping[Request, Doubles]]
"""Requests to points (d,) of their pictures; those that time was too short for are missing."""

REACH = 6.5
"""Log-odds that a standard deviation of what is still to be learned can make up for. SelectedExemplars, as FOREIGN is, on 800 zoo probes (seeds 11
and 12 of `benchmarks/bench_racing.py`) with at most four references: 2.14 times fewer rows, and all 495 probes that the exhaustive run
attributes keep their first candidate."""
FOREIGN = 0.1
"""How far below the threshold of what no candidate makes a probe's consistency ends its race; nearer below, nothing is settled."""


@dataclass(slots=True)
class Standing:
    """What one probe's race has come to."""

    counts: Integers
    """(C,) references drawn by each candidate: the first of the seeds."""
    points: list[list[Doubles]]
    """C lists of (d,)"""
    live: Booleans
    """(C,) who may still come first, by what is drawn so far"""
    stopped_by: str = ""
    """What ended the race before it was decided, "" if nothing did."""

    def references(self, dimension: int) -> list[Doubles]:
        """C arrays (K, d)."""
        return [np.stack(found) if found else np.zeros((0, dimension)) for found in self.points]


@dataclass(frozen=True, slots=True, kw_only=True)
class Race:
    """The rules, for C candidates called `names`."""

    names: tuple[str, ...]
    seeds: range
    """As many as a candidate may draw."""
    within_trace: float
    calibrated: Callable[[int], CalibrationPoint]
    """With so many references."""
    costs: Doubles = field(default_factory=lambda: np.ones(0))
    """(C,) of a picture, mean 1: who costs twice the mean must be twice as likely. Empty: all cost the same."""
    reach: float = REACH
    """Infinite: all draw all that they may."""
    max_pictures: int | None = None
    """For one probe."""

    def __call__(self, captions: Sequence[str], probes: Sequence[Doubles], known: Sequence[Prior], fetch: Fetch) -> list[Standing]:
        """One race for each probe (d,), side by side so that they share waves; none depends on another.

        DeadlineError if time was too short for a single picture of a probe.
        """
        races = [_begin(len(self.names)) for _ in probes]
        running = range(len(races))
        while True:
            judged = self._judged([probes[i] for i in running], [races[i] for i in running], [known[i] for i in running])
            wanted = {i: self._wanted(captions[i], known[i], races[i], *own) for i, own in zip(running, judged, strict=True)}
            requests = list(dict.fromkeys(request for asked in wanted.values() for request in asked))
            if not requests:
                return races
            found = fetch(requests)
            for i, asked in wanted.items():
                self._enter(races[i], asked, found)
            running = [i for i, asked in wanted.items() if asked and not races[i].stopped_by]
            if any(not race.counts.any() for race in races):
                raise DeadlineError(
                    "the deadline passed before a single picture was drawn for every probe; allow more time, or fewer steps"
                )

    def _judged(self, probes: Sequence[Doubles], races: Sequence[Standing], known: Sequence[Prior]) -> list[tuple[Doubles, float]]:
        """Scores (C,) and consistency of each probe by what its race has drawn; nothing before anything is drawn."""
        if not races or not all(race.counts.any() for race in races):
            return [(np.zeros(0), 0.0)] * len(races)
        references = [race.references(len(probe)) for race, probe in zip(races, probes, strict=True)]
        scores, consistency = score(np.stack(probes)[:, None], references, known, self.within_trace)
        return list(zip(scores[:, 0], consistency[:, 0].tolist(), strict=True))

    def _wanted(self, caption: str, known: Prior, race: Standing, scores: Doubles, consistency: float) -> list[Request]:
        """The next round of one probe, the most promising for its cost first; fewer where the budget ends."""
        drawn = race.counts.any()
        contenders = self._contenders(known, race, scores, consistency) if drawn else np.argsort(self._handicap(), kind="stable")
        asked = [i for i in contenders if race.counts[i] < len(self.seeds)]
        asked = [i for i in asked if race.counts[i] == min(race.counts[j] for j in asked)]  # who is behind catches up
        if self.max_pictures is not None and (left := self.max_pictures - int(race.counts.sum())) < len(asked):
            asked = asked[:left]
            if not asked:
                race.stopped_by = f"{self.max_pictures} pictures"
        return [Request(self.names[i], caption, self.seeds[int(race.counts[i])]) for i in asked]

    def _contenders(self, known: Prior, race: Standing, scores: Doubles, consistency: float) -> Integers:
        """The leader and the challenger with the highest upper bound, while it reaches the leader; all of them without bounds."""
        point = self.calibrated(int(race.counts.max()))
        values = point.temperature * scores
        if math.isinf(self.reach):
            return np.argsort(self._handicap() - values, kind="stable")
        leader = int(values.argmax())
        variance = remaining_variance(known, race.counts, len(self.seeds))
        bounds = values + self.reach * np.sqrt(variance + variance[leader]) - self._handicap()
        bounds[leader] = np.inf
        below = point.unknown_below - consistency
        race.live = (bounds >= values[leader]) & (below <= FOREIGN)
        pair: Integers = np.argsort(-bounds, kind="stable")[:2]
        return pair if race.live.sum() > 1 or 0 < below <= FOREIGN else pair[:0]

    def _enter(self, race: Standing, asked: Iterable[Request], found: Mapping[Request, Doubles]) -> None:
        for request in asked:
            if request not in found:
                race.stopped_by = "the deadline"
                continue
            i = self.names.index(request.candidate)
            race.points[i].append(found[request])
            race.counts[i] += 1

    def _handicap(self) -> Doubles:
        costs = self.costs if len(self.costs) else np.ones(len(self.names))
        handicap: Doubles = np.log(np.maximum(costs, 1.0))
        return handicap


def _begin(candidates: int) -> Standing:
    return Standing(np.zeros(candidates, np.int64), [[] for _ in range(candidates)], np.ones(candidates, np.bool_))
