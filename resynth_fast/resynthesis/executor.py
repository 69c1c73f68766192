"""Carries plans out: requests in, pictures out, with the weights of what comes next on their way."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from .. import scheduler
from ..bundle import Bundle, Component
from ..candidates import Maker
from ..devices.base import CPU, Array, Device
from ..engines.pool import EnginePool
from ..scheduler import Plan, TextWave, Wave, Work
from ..types import Pixels, Request


@runtime_checkable
class Engined(Protocol):
    """A candidate whose engines are ours to schedule."""

    bundle: Bundle

    def work(self, steps: int) -> Work:
        """What its pictures take."""

    def encode(self, prompts: list[str]) -> None:
        """Encode prompts ahead of their pictures."""

    def draw(self, prompts: Sequence[str], seeds: Sequence[int], steps: int) -> tuple[Device, Array]:
        """Pictures (b, H, W, 3) uint8, left where they came to be."""


Features = npt.NDArray[np.float32]
Describe = Callable[[Sequence[Pixels] | Array, Device], Features]
"""n pictures, and where they are → (n, d) on the host."""


class Made(NamedTuple):
    """A picture, and what describing it gave."""

    pixels: Pixels
    features: Features
    """(d,); (0,) if it was not described"""


class Executor:
    """Makes the pictures of `candidates`, in waves. What a wave holds changes the speed, never a picture."""

    def __init__(self, candidates: Mapping[str, Maker], pool: EnginePool, steps: int) -> None:
        self.candidates = candidates
        self.pool = pool
        self.steps = steps
        self._ours = {name: candidate for name, candidate in candidates.items() if isinstance(candidate, Engined)}
        self._components: dict[str, Component] = {
            component.file.sha256: component for candidate in self._ours.values() for component in candidate.bundle.components.values()
        }

    def __call__(
        self,
        requests: Iterable[Request],
        *,
        describe: Describe | None = None,
        until: float | None = None,
        describe_s: float = 0.0,
    ) -> dict[Request, Made]:
        """The picture of every distinct request, in their order, with its features (d,) if it is to `describe` them, wave by wave.

        Waves of small networks run side by side, one thread each, and beside what a server makes. With `until`, a time of
        `time.monotonic`, the cheapest come first, and once a wave would end later, by what such waves have taken and
        `describe_s` for each picture, none is begun: the result has what was made.
        """
        wanted = list(dict.fromkeys(requests))
        plan = self._plan(wanted, cheapest_first=until is not None)
        self.pool.expect([self._components[use.graph.sha256] for use in plan.uses()], plan.pinned)
        made: dict[Request, Made] = {}
        work = partial(self._carry_out, made, plan.pinned, describe, _Until(until, describe_s))
        abreast, texts, served, others = plan.parts
        for text in texts:
            work(text)
        with self.pool.lanes.running(work, abreast) as finish:
            for wave in served:
                work(wave)
            finish()
        for each in others:
            work(each)
        self.pool.expect([], plan.pinned)
        return {request: made[request] for request in wanted if request in made}

    def forecast(self, requests: Iterable[Request]) -> float:
        """Seconds that making them would take, by what such waves have taken, or by the size of the files where nothing was measured."""
        plan = self._plan(list(dict.fromkeys(requests)))
        abreast = [wave.seconds for wave in plan.parts.abreast]
        return plan.seconds - sum(abreast) + max(sum(abreast) / self.pool.lanes.count, max(abreast, default=0.0))

    def costs(self) -> dict[str, float]:
        """What a picture of each candidate costs beside the others, from its files alone: the same on every machine. Mean 1."""
        free = scheduler.CostTable()
        seconds = {name: sum(use.seconds for use in candidate.work(self.steps).uses(1, free)) for name, candidate in self._ours.items()}
        mean = sum(seconds.values()) / len(seconds) if seconds else 1.0
        return {name: seconds.get(name, mean) / mean for name in self.candidates}

    def _plan(self, wanted: Sequence[Request], *, cheapest_first: bool = False) -> Plan:
        return scheduler.plan(
            wanted,
            {name: candidate.work(self.steps) for name, candidate in self._ours.items()},
            self.pool.costs,
            budget_bytes=self.pool.budget_bytes,
            resident=self.pool.resident,
            cheapest_first=cheapest_first,
            lanes=self.pool.lanes.count,
        )

    def _carry_out(
        self, made: dict[Request, Made], pinned: frozenset[str], describe: Describe | None, until: _Until, wave: TextWave | Wave
    ) -> None:
        """Add what `wave` makes to `made`, if there is time for it."""
        pictures = len(wave.requests) if isinstance(wave, Wave) else 0
        if not until.allows(self._forecast(wave), pictures):
            return
        if isinstance(wave, TextWave):
            self._encode(wave, pinned)
        else:
            made.update(self._make(wave, describe))

    def _encode(self, wave: TextWave, pinned: frozenset[str]) -> None:
        for name in wave.candidates:
            self._ours[name].encode(list(wave.prompts))
        if self.pool.budget_bytes is not None:
            for use in wave.uses:
                if use.graph.sha256 not in pinned:
                    self.pool.release(self._components[use.graph.sha256])

    def _make(self, wave: Wave, describe: Describe | None) -> dict[Request, Made]:
        prompts, seeds = [r.prompt for r in wave.requests], [r.seed for r in wave.requests]
        if ours := self._ours.get(wave.candidate):
            device, pictures = ours.draw(prompts, seeds, self.steps)
        else:
            device, pictures = CPU, self.candidates[wave.candidate].make(prompts, seeds, self.steps)
        features = describe(pictures, device) if describe else np.empty((len(pictures), 0), np.float32)
        return dict(zip(wave.requests, map(Made, device.to_host(pictures), features), strict=True))

    def _forecast(self, wave: TextWave | Wave) -> float:
        """Seconds; nothing where nothing was measured, so that a guess never stops anybody."""
        costs = self.pool.costs
        return sum(use.seconds for use in wave.uses if use.graph in costs)


class _Until:
    """A time that all must be done by; once anything would not be, nothing more begins."""

    def __init__(self, until: float | None, describe_s: float) -> None:
        self._until, self._describe_s, self._late = until, describe_s, False

    def allows(self, seconds: float, pictures: int) -> bool:
        if self._until is not None:
            self._late = self._late or time.monotonic() + seconds + self._describe_s * pictures > self._until
        return not self._late
