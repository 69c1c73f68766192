"""Carries plans out: requests in, pictures out, with the weights of what comes next on their way."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from .. import scheduler
from ..arrays import Array
from ..bundle import Bundle, Component
from ..candidates import GenerativeCandidate
from ..devices.base import CPU, Device
from ..engines.pool import EnginePool
from ..scheduler import Plan, TextWave, Wave, Work
from ..types import Pixels, Request


@runtime_checkable
class ScheduledCandidate(Protocol):
    """A candidate whose engines are ours to schedule."""

    bundle: Bundle

    def work(self, steps: int) -> Work:
        """What its pictures take."""

    def encode(self, prompts: list[str]) -> None:
        """Encode prompts ahead of their pictures."""

    def draw(self, prompts: Sequence[str], seeds: Sequence[int], steps: int) -> tuple[Device[Any], Array]:
        """Pictures (b, H, W, 3) uint8, left where they came to be."""


Features = npt.NDArray[np.float32]
Describe = Callable[[Sequence[Pixels] | Array, Device[Any]], Features]
"""n pictures, and where they are → (n, d) on the host."""


class Generated(NamedTuple):
    """A picture, and what describing it gave."""

    pixels: Pixels
    features: Features
    """(d,); (0,) if it was not described"""


class Executor:
    """Makes the pictures of `candidates`, in waves. What a wave holds changes the speed, never a picture."""

    def __init__(self, candidates: Mapping[str, GenerativeCandidate], pool: EnginePool, steps: int) -> None:
        self.candidates = candidates
        self.pool = pool
        self.steps = steps
        self._scheduled = {name: candidate for name, candidate in candidates.items() if isinstance(candidate, ScheduledCandidate)}
        self._components: dict[str, Component] = {
            component.file.sha256: component for candidate in self._scheduled.values() for component in candidate.bundle.components.values()
        }

    def __call__(
        self,
        requests: Iterable[Request],
        *,
        describe: Describe | None = None,
        deadline: float | None = None,
        features_s: float = 0.0,
    ) -> dict[Request, Generated]:
        """The picture of every distinct request, in their order, with its features (d,) if it is to `describe` them, wave by wave.

        Waves of small networks run side by side, one thread each, and beside what a server makes. With `deadline`, a time of
        `time.monotonic`, the cheapest come first, and once a wave would end later, by what such waves have taken and
        `features_s` for each picture, none is begun: the result has what was made.
        """
        wanted = list(dict.fromkeys(requests))
        plan = self._plan(wanted, cheapest_first=deadline is not None)
        self.pool.expect([self._components[use.graph.sha256] for use in plan.uses()], plan.pinned)
        made: dict[Request, Generated] = {}
        work = partial(self._carry_out, made, plan.pinned, describe, Deadline(deadline, features_s))
        lane_waves, text_waves, remote, sequential = plan.parts
        for text in text_waves:
            work(text)
        with self.pool.lanes.running(work, lane_waves) as finish:
            for call in remote:
                work(call)
            finish()
        for wave in sequential:
            work(wave)
        self.pool.expect([], plan.pinned)
        return {request: made[request] for request in wanted if request in made}

    def forecast(self, requests: Iterable[Request]) -> float:
        """Seconds that making them would take, by what such waves have taken, or by the size of the files where nothing was measured."""
        plan = self._plan(list(dict.fromkeys(requests)))
        lane_s = [wave.seconds for wave in plan.parts.lane_waves]
        return plan.seconds - sum(lane_s) + max(sum(lane_s) / self.pool.lanes.count, max(lane_s, default=0.0))

    def costs(self) -> dict[str, float]:
        """What a picture of each candidate costs beside the others, from its files alone: the same on every machine. Mean 1."""
        free = scheduler.CostTable()
        seconds = {
            name: sum(use.seconds for use in candidate.work(self.steps).uses(1, free)) for name, candidate in self._scheduled.items()
        }
        mean = sum(seconds.values()) / len(seconds) if seconds else 1.0
        return {name: seconds.get(name, mean) / mean for name in self.candidates}

    def _plan(self, wanted: Sequence[Request], *, cheapest_first: bool = False) -> Plan:
        return scheduler.plan(
            wanted,
            {name: candidate.work(self.steps) for name, candidate in self._scheduled.items()},
            self.pool.costs,
            budget_bytes=self.pool.budget_bytes,
            resident=self.pool.resident,
            cheapest_first=cheapest_first,
            lanes=self.pool.lanes.count,
        )

    def _carry_out(
        self, made: dict[Request, Generated], pinned: frozenset[str], describe: Describe | None, deadline: Deadline, wave: TextWave | Wave
    ) -> None:
        """Add what `wave` makes to `made`, if there is time for it."""
        pictures = len(wave.requests) if isinstance(wave, Wave) else 0
        if not deadline.allows(self._forecast(wave), pictures):
            return
        if isinstance(wave, TextWave):
            self._encode(wave, pinned)
        else:
            made.update(self._make(wave, describe))

    def _encode(self, wave: TextWave, pinned: frozenset[str]) -> None:
        for name in wave.candidates:
            self._scheduled[name].encode(list(wave.prompts))
        if self.pool.budget_bytes is not None:
            for use in wave.uses:
                if use.graph.sha256 not in pinned:
                    self.pool.release(self._components[use.graph.sha256])

    def _make(self, wave: Wave, describe: Describe | None) -> dict[Request, Generated]:
        prompts, seeds = [r.prompt for r in wave.requests], [r.seed for r in wave.requests]
        device: Device[Any]
        pictures: Any
        if scheduled := self._scheduled.get(wave.candidate):
            device, pictures = scheduled.draw(prompts, seeds, self.steps)
        else:
            device, pictures = CPU, self.candidates[wave.candidate].make(prompts, seeds, self.steps)
        features = describe(pictures, device) if describe else np.empty((len(pictures), 0), np.float32)
        return dict(zip(wave.requests, map(Generated, device.to_host(pictures), features), strict=True))

    def _forecast(self, wave: TextWave | Wave) -> float:
        """Seconds; nothing where nothing was measured, so that a guess never stops anybody."""
        costs = self.pool.costs
        return sum(use.seconds for use in wave.uses if use.graph in costs)


class Deadline:
    """A time that all must be done by; once anything would not be, nothing more begins."""

    def __init__(self, deadline: float | None, features_s: float) -> None:
        self._deadline, self._features_s, self._late = deadline, features_s, False

    def allows(self, seconds: float, pictures: int) -> bool:
        if self._deadline is not None:
            self._late = self._late or time.monotonic() + seconds + self._features_s * pictures > self._deadline
        return not self._late
