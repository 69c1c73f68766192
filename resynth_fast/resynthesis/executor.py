"""Carries out the scheduler's plans: requests in, pictures out, while the weights of the next waves are loading."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from .. import scheduler
from ..bundle import Component
from ..candidates import GenerativeCandidate, ScheduledCandidate
from ..devices.base import CPU, Device
from ..engines.pool import EnginePool
from ..options import Options
from ..scheduler import Plan, TextWave, Wave
from ..types import Floats, Pixels, Request
from .preparation import FeatureExtraction
from .timing import Deadline, StageTimer


class Generated(NamedTuple):
    """A picture and its features."""

    pixels: Pixels
    features: Floats
    """(d,); (0,) if none were asked for"""


@dataclass(frozen=True, slots=True)
class _Run:
    """One call of the executor: its plan, its limits and its results so far."""

    plan: Plan
    features: FeatureExtraction | None
    deadline: Deadline
    timer: StageTimer
    generated: dict[Request, Generated] = field(default_factory=dict)


class Executor:
    """Generates the pictures of `candidates` in waves. The composition of a wave changes the speed, never a picture."""

    def __init__(self, candidates: Mapping[str, GenerativeCandidate], pool: EnginePool, options: Options) -> None:
        self.candidates = candidates
        self.pool = pool
        self.options = options
        self._scheduled = {name: candidate for name, candidate in candidates.items() if isinstance(candidate, ScheduledCandidate)}
        self._components: dict[str, Component] = {
            component.file.sha256: component for candidate in self._scheduled.values() for component in candidate.bundle.components.values()
        }

    def __call__(
        self,
        requests: Iterable[Request],
        *,
        features: FeatureExtraction | None = None,
        deadline: Deadline | None = None,
        timer: StageTimer | None = None,
    ) -> dict[Request, Generated]:
        """The picture of every distinct request, in their order, with its features (d,) if `features` are to be extracted.

        Waves of small networks run side by side, one thread each, and beside the calls of servers. With a `deadline` the
        cheapest waves come first, and no wave begins that would end late by the cost table's forecast: the result has
        the pictures generated until then. `timer` measures stage "generate" around the call; the time of features is moved from
        there to stage "features".
        """
        wanted = list(dict.fromkeys(requests))
        deadline = deadline or Deadline()
        plan = self._plan(wanted, cheapest_first=deadline.finite)
        self.pool.expect([self._components[use.graph.sha256] for use in plan.uses()], plan.pinned)
        run = _Run(plan, features, deadline, timer or StageTimer())
        lane_waves, text_waves, remote, sequential = plan.parts
        for text in text_waves:
            self._carry_out(run, text)
        with self.pool.lanes.running(lambda wave: self._carry_out(run, wave), lane_waves) as finish:
            for call in remote:
                self._carry_out(run, call)
            finish()
        for wave in sequential:
            self._carry_out(run, wave)
        self.pool.expect([], plan.pinned)
        return {request: run.generated[request] for request in wanted if request in run.generated}

    def guidance(self, name: str) -> tuple[float, ...]:
        """Guidance of a candidate's references, as `Request.guidance`, in their order."""
        guided = name in self._scheduled and self._scheduled[name].guided
        return tuple(float(self.options.multiple(i)) if guided else 1.0 for i in range(self.options.references))

    def references(self, name: str, prompt: str) -> list[Request]:
        """Requests of a candidate's references for `prompt`, in their order."""
        return [Request(name, prompt, *of_one) for of_one in zip(self.options.seeds, self.guidance(name), strict=True)]

    def make(self, prompts: Sequence[str], references: int | None = None) -> dict[Request, Pixels]:
        """Every candidate's first references (by default all) for every prompt, each distinct picture generated once."""
        generated = self(
            [request for prompt in prompts for name in self.candidates for request in self.references(name, prompt)[:references]]
        )
        return {request: picture.pixels for request, picture in generated.items()}

    def forecast_s(self, requests: Iterable[Request]) -> float:
        """Seconds of generating `requests`, by the cost table, which guesses from the size of a file what was never measured."""
        plan = self._plan(list(dict.fromkeys(requests)))
        lane_s = [wave.seconds for wave in plan.parts.lane_waves]
        return plan.seconds - sum(lane_s) + max(sum(lane_s) / self.pool.lanes.count, max(lane_s, default=0.0))

    def costs(self) -> dict[str, float]:
        """Relative cost of a picture of each candidate, mean 1, from its files alone: the same on every machine."""
        unmeasured = scheduler.CostTable()
        seconds = {
            name: sum(use.seconds for use in candidate.work(self.options.steps).uses(1, unmeasured))
            for name, candidate in self._scheduled.items()
        }
        mean = sum(seconds.values()) / len(seconds) if seconds else 1.0
        return {name: seconds.get(name, mean) / mean for name in self.candidates}

    def _plan(self, wanted: Sequence[Request], *, cheapest_first: bool = False) -> Plan:
        return scheduler.plan(
            wanted,
            {name: candidate.work(self.options.steps) for name, candidate in self._scheduled.items()},
            self.pool.costs,
            budget_bytes=self.pool.budget_bytes,
            resident=self.pool.resident,
            cheapest_first=cheapest_first,
            lanes=self.pool.lanes.count,
        )

    def _carry_out(self, run: _Run, wave: TextWave | Wave) -> None:
        """Run `wave` if there is time for it, and add its pictures to the results."""
        if not run.deadline.allows(self._measured_s(run, wave)):
            return
        if isinstance(wave, TextWave):
            self._encode(run, wave)
        else:
            run.generated.update(self._make(run, wave))

    def _encode(self, run: _Run, wave: TextWave) -> None:
        for name in wave.candidates:
            self._scheduled[name].encode(list(wave.prompts))
        if self.pool.budget_bytes is not None:
            for use in wave.uses:
                if use.graph.sha256 not in run.plan.pinned:
                    self.pool.release(self._components[use.graph.sha256])

    def _make(self, run: _Run, wave: Wave) -> dict[Request, Generated]:
        prompts, seeds = [r.prompt for r in wave.requests], [r.seed for r in wave.requests]
        device: Device[Any]
        pictures: Any
        if scheduled := self._scheduled.get(wave.candidate):
            device, pictures = scheduled.draw(prompts, seeds, self.options.steps, wave.requests[0].guidance)  # one for the whole wave
        else:
            device, pictures = CPU, self.candidates[wave.candidate].make(prompts, seeds, self.options.steps)
        features = np.empty((len(pictures), 0), np.float32)
        if run.features:
            # Extracted on the generating device and thread, so that other waves are generated meanwhile.
            with run.timer.stage("features", inside="generate", threads=self.pool.lanes.count):
                features = run.features(pictures, device)
        return dict(zip(wave.requests, map(Generated, device.to_host(pictures), features), strict=True))

    def _measured_s(self, run: _Run, wave: TextWave | Wave) -> float:
        """Forecast of `wave` in seconds from measured costs alone, so that a guess never stops a run."""
        costs = self.pool.costs
        seconds = sum(use.seconds for use in wave.uses if use.graph in costs)
        return seconds + run.features.forecast_s(len(wave.requests)) if run.features and isinstance(wave, Wave) else seconds
