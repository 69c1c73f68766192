"""Racing: every candidate generates one picture; then only the leader and its likeliest challenger generate further ones.

This is LUCB (Kalyanakrishnan, Tewari, Auer & Stone, PAC Subset Selection in Stochastic Multi-armed Bandits, ICML 2012) for
one arm, with bounds from the recipe's own variances. The contenders are chosen anew in every round, so no candidate is out
for good; the race ends when no challenger's bound reaches the leader. It also ends for a probe that is clearly unlike the
pictures of every candidate: telling these apart would answer nothing. All pictures count. The content is the mean over
all candidates, not only the contenders, which would pull it towards themselves; and the score weighs unequal numbers of
references itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..errors import DeadlineError
from ..scoring.calibration import CalibrationPoint
from ..scoring.prior import Prior, remaining_variance
from ..scoring.score import score
from ..types import Booleans, Doubles, Integers, Request

Fetch = Callable[[Sequence[Request]], Mapping[Request, Doubles]]
"""From requests to the whitened features (d,) of their pictures, without those that time was too short for."""

REACH = 6.5
"""Width of the bounds: log-odds per standard deviation of the score that further references may still add. It was chosen, as
FOREIGN was, on 800 zoo probes (seeds 11 and 12 of `benchmarks/bench_racing.py`) with at most four references: denoiser rows
fall by 2.14 times, and all 495 probes that the exhaustive run attributes keep their first candidate."""
FOREIGN = 0.1
"""Stop a race when consistency is this far below the unknown threshold. Just below the threshold the race goes on."""


@dataclass(slots=True)
class Standing:
    """The state of one probe's race, for C candidates."""

    counts: Integers
    """(C,) number of each candidate's references, which have the first seeds"""
    points: list[list[Doubles]]
    """C lists of whitened references (d,)"""
    live: Booleans
    """(C,) whether each candidate may still come first, by the references so far"""
    stopped_by: str = ""
    """The limit that ended the race before it was decided; "" if none did."""

    def references(self, dimension: int) -> list[Doubles]:
        """C arrays (K, d)."""
        return [np.stack(rows) if rows else np.zeros((0, dimension)) for rows in self.points]


@dataclass(frozen=True, slots=True, kw_only=True)
class Race:
    """The rules of a race between C candidates called `names`."""

    names: tuple[str, ...]
    seeds: range
    """Seeds of a candidate's references, as many as it may generate."""
    guidance: Sequence[Sequence[float]] = ()
    """C rows: guidance of a candidate's references, as many as seeds. Empty: each candidate's own."""
    within_trace: float
    calibrated: Callable[[int], CalibrationPoint]
    """From the number of references to the calibration that holds for it."""
    costs: Doubles = field(default_factory=lambda: np.ones(0))
    """(C,) cost of a picture, mean 1: a candidate that costs twice the mean must be twice as likely. Empty: all cost the same."""
    reach: float = REACH
    """Width of the bounds; infinite: every candidate generates all its references."""
    max_pictures: int | None = None
    """Maximum number of pictures of one probe."""

    def __call__(self, captions: Sequence[str], probes: Sequence[Doubles], priors: Sequence[Prior], fetch: Fetch) -> list[Standing]:
        """One race per probe (d,), run side by side so that they share waves; none depends on another.

        DeadlineError if time was too short for a single picture of a probe.
        """
        races = [_begin(len(self.names)) for _ in probes]
        running = list(range(len(races)))
        while True:
            judged = self._judged([probes[i] for i in running], [races[i] for i in running], [priors[i] for i in running])
            rounds = {i: self._next_round(captions[i], priors[i], races[i], *own) for i, own in zip(running, judged, strict=True)}
            requests = list(dict.fromkeys(request for part in rounds.values() for request in part))
            if not requests:
                return races
            points = fetch(requests)
            for i, part in rounds.items():
                self._enter(races[i], part, points)
            running = [i for i, part in rounds.items() if part and not races[i].stopped_by]
            if any(not race.counts.any() for race in races):
                raise DeadlineError(
                    "the deadline passed before a single picture was generated for every probe; allow more seconds, or fewer steps"
                )

    def _judged(self, probes: Sequence[Doubles], races: Sequence[Standing], priors: Sequence[Prior]) -> list[tuple[Doubles, float]]:
        """Scores (C,) and consistency of each probe by its references so far; (0,) and 0 before the first round."""
        if not races or not all(race.counts.any() for race in races):
            return [(np.zeros(0), 0.0)] * len(races)
        references = [race.references(len(probe)) for race, probe in zip(races, probes, strict=True)]
        guidance = [[row[:n] for row, n in zip(self.guidance, race.counts, strict=True)] for race in races] if self.guidance else None
        scores, consistency = score(np.stack(probes)[:, None], references, priors, self.within_trace, guidance)
        return list(zip(scores[:, 0], consistency[:, 0].tolist(), strict=True))

    def _next_round(self, caption: str, prior: Prior, race: Standing, scores: Doubles, consistency: float) -> list[Request]:
        """Requests of one probe's next round, the most promising for its cost first; fewer if `max_pictures` is reached."""
        started = race.counts.any()
        contenders = self._contenders(prior, race, scores, consistency) if started else np.argsort(self._handicap(), kind="stable")
        chosen = [i for i in contenders if race.counts[i] < len(self.seeds)]
        chosen = [i for i in chosen if race.counts[i] == min(race.counts[j] for j in chosen)]  # the one with fewer catches up
        if self.max_pictures is not None and (left := self.max_pictures - int(race.counts.sum())) < len(chosen):
            chosen = chosen[:left]
            if not chosen:
                race.stopped_by = f"{self.max_pictures} pictures"
        return [self._request(i, caption, int(race.counts[i])) for i in chosen]

    def _request(self, candidate: int, caption: str, reference: int) -> Request:
        guidance = self.guidance[candidate][reference] if self.guidance else 1.0
        return Request(self.names[candidate], caption, self.seeds[reference], guidance)

    def _contenders(self, prior: Prior, race: Standing, scores: Doubles, consistency: float) -> Integers:
        """The leader and the challenger with the highest upper bound, if it reaches the leader; everyone if the reach is infinite."""
        point = self.calibrated(int(race.counts.max()))
        values = point.temperature * scores
        if math.isinf(self.reach):
            return np.argsort(self._handicap() - values, kind="stable")
        leader = int(values.argmax())
        variance = remaining_variance(prior, race.counts, len(self.seeds))
        bounds = values + self.reach * np.sqrt(variance + variance[leader]) - self._handicap()
        bounds[leader] = np.inf
        below = point.unknown_below - consistency
        race.live = (bounds >= values[leader]) & (below <= FOREIGN)
        pair: Integers = np.argsort(-bounds, kind="stable")[:2]
        return pair if race.live.sum() > 1 or 0 < below <= FOREIGN else pair[:0]

    def _enter(self, race: Standing, requests: Iterable[Request], points: Mapping[Request, Doubles]) -> None:
        for request in requests:
            if request not in points:
                race.stopped_by = "the deadline"
                continue
            i = self.names.index(request.candidate)
            race.points[i].append(points[request])
            race.counts[i] += 1

    def _handicap(self) -> Doubles:
        costs = self.costs if len(self.costs) else np.ones(len(self.names))
        handicap: Doubles = np.log(np.maximum(costs, 1.0))
        return handicap


def _begin(candidates: int) -> Standing:
    return Standing(np.zeros(candidates, np.int64), [[] for _ in range(candidates)], np.ones(candidates, np.bool_))
