"""Carries plans out: requests in, pictures out, with the weights of what comes next on their way."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, runtime_checkable

from . import scheduler
from .bundle import Bundle, Component
from .candidates import Maker
from .engines import EnginePool
from .scheduler import Plan, TextWave, Wave, Work
from .types import Pixels, Request


@runtime_checkable
class Engined(Protocol):
    """A candidate whose engines are ours to schedule."""

    bundle: Bundle

    def work(self, steps: int) -> Work:
        """What its pictures take."""

    def encode(self, prompts: list[str]) -> None:
        """Encode prompts ahead of their pictures."""


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

    def __call__(self, requests: Iterable[Request], *, until: float | None = None) -> dict[Request, Pixels]:
        """The picture of every distinct request, in their order.

        With `until`, a time of `time.monotonic`, the cheapest come first, and a wave that would end later, by what such
        waves have taken, is not begun: the result has what was made.
        """
        wanted = list(dict.fromkeys(requests))
        plan = self._plan(wanted, cheapest_first=until is not None)
        self.pool.expect([self._components[use.graph.sha256] for use in plan.uses()], plan.pinned)
        made: dict[Request, Pixels] = {}
        for wave in plan.waves:
            if until is not None and time.monotonic() + self._forecast(wave) > until:
                break
            if isinstance(wave, TextWave):
                self._encode(wave, plan.pinned)
            else:
                made.update(self._make(wave))
        self.pool.expect([], plan.pinned)
        return {request: made[request] for request in wanted if request in made}

    def forecast(self, requests: Iterable[Request]) -> float:
        """Seconds that making them would take, by what such waves have taken, or by the size of the files where nothing was measured."""
        return self._plan(list(dict.fromkeys(requests))).seconds

    def costs(self) -> dict[str, float]:
        """What a picture of each candidate costs beside the others, from its files alone: the same on every machine. Mean 1."""
        free = scheduler.CostTable()
        seconds = {name: sum(use.seconds for use in candidate.work(self.steps).uses(1, free)) for name, candidate in self._ours.items()}
        mean = sum(seconds.values()) / len(seconds) if seconds else 1.0
        return {name: seconds.get(name, mean) / mean for name in self.candidates}

    def _plan(self, wanted: Sequence[Request], *, cheapest_first: bool = False) -> Plan:
        return scheduler.plan(
            wanted, {name: candidate.work(self.steps) for name, candidate in self._ours.items()}, self.pool.costs,
            budget_bytes=self.pool.budget_bytes, resident=self.pool.resident, cheapest_first=cheapest_first,
        )  # fmt: skip

    def _encode(self, wave: TextWave, pinned: frozenset[str]) -> None:
        for name in wave.candidates:
            self._ours[name].encode(list(wave.prompts))
        if self.pool.budget_bytes is not None:
            for use in wave.uses:
                if use.graph.sha256 not in pinned:
                    self.pool.release(self._components[use.graph.sha256])

    def _make(self, wave: Wave) -> dict[Request, Pixels]:
        prompts, seeds = [r.prompt for r in wave.requests], [r.seed for r in wave.requests]
        return dict(zip(wave.requests, self.candidates[wave.candidate].make(prompts, seeds, self.steps), strict=True))

    def _forecast(self, wave: TextWave | Wave) -> float:
        """Seconds; nothing where nothing was measured, so that a guess never stops anybody."""
        costs = self.pool.costs
        return sum(use.seconds for use in wave.uses if use.graph in costs)
