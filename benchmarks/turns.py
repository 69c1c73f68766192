"""Contestants in processes of their own that take turns: one works at a time, and each has its own peak memory.

    with Contestants(ours=(Ours, {"references": 4}), naive=(Loop, {"pipelines": folder, "references": 4})) as contestants:
        turns = contestants([probe])        # {"ours": Turn, "naive": Turn}; another contestant starts each time

In one process, torch and ONNX Runtime would share threads and memory. Two processes at once would share the processor.
"""

from __future__ import annotations

import multiprocessing
import resource
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from paper import Answer

from resynth_fast.backends.onnx_model import OnnxModel


@dataclass(frozen=True, slots=True)
class Probe:
    """A picture file, the candidate that generated it, and its caption by the captioner."""

    path: Path
    truth: str
    caption: str


@dataclass(frozen=True, slots=True)
class Turn:
    """The answers of one call, and its cost."""

    answers: list[Answer]
    seconds: float
    cpu_s: float
    engines_s: float = float("nan")
    """The part of `seconds` inside engines, averaged over lanes; NaN for a contestant without engines."""
    peak_mb: float = float("nan")
    """Peak resident memory of the process since its start."""


class Ours:
    """An attributor of the zoo, called with `chunk` probes at a time.

    The default chunk is that of `resynth attribute`. The options are those of `Attributor.open`.
    """

    def __init__(self, *, chunk: int | None = None, **options: Any) -> None:
        from resynth_fast import Attributor
        from resynth_fast.report import batch

        self.chunk = chunk or batch.CHUNK
        self.attributor = Attributor.open(**options)
        pool = self.attributor.pool
        self.clock = pool.backend = Clocked(pool.backend, pool.lanes.count)

    def __call__(self, probes: Sequence[Probe]) -> list[Answer]:
        parts = [probes[i : i + self.chunk] for i in range(0, len(probes), self.chunk)]
        verdicts = [verdict for part in parts for verdict in self.attributor([probe.path for probe in part])]
        return [
            Answer(v.candidates[0].name, {c.name: [r.pixels for r in c.resyntheses] for c in v.candidates}, caption=v.caption)
            for v in verdicts
        ]


class Clocked:
    """A backend that sums the time of its engines, divided by the number of lanes, which run at once."""

    def __init__(self, backend: Any, lanes: int) -> None:
        self._backend, self._lanes, self._lock = backend, lanes, threading.Lock()
        self.seconds = 0.0

    def add(self, seconds: float) -> None:
        with self._lock:
            self.seconds += seconds / self._lanes

    @property
    def runs_on_caller_thread(self) -> bool:
        return bool(self._backend.runs_on_caller_thread)

    def version(self) -> str:
        return str(self._backend.version())

    def load(self, model: OnnxModel, *, threads: int) -> Any:
        return _ClockedEngine(self._backend.load(model, threads=threads), self)


class _ClockedEngine:
    def __init__(self, engine: Any, clock: Clocked) -> None:
        self.fallback, self.device = engine.fallback, engine.device
        self._engine, self._clock = engine, clock

    def run(self, inputs: Any) -> Any:
        start = time.perf_counter()
        outputs = self._engine.run(inputs)
        self._clock.add(time.perf_counter() - start)
        return outputs


class Loop:
    """The naive loop; with `batch` it generates a candidate's references in one batch."""

    def __init__(self, *, pipelines: Path, candidates: Sequence[str], references: int, steps: int, threads: int = 1, batch: bool = False):
        import diffusers
        import torch
        import transformers
        from naive import Naive

        from resynth_fast import zoo
        from resynth_fast.extractors.space import open_space

        for library in (diffusers, transformers):
            library.utils.logging.disable_progress_bar()
            library.utils.logging.set_verbosity_error()
        torch.set_num_threads(threads)
        self.naive = Naive([pipelines / name for name in candidates], open_space(zoo.bundle(zoo.TEXTURE)))
        self.seeds, self.steps, self.batch = range(references), steps, batch

    def __call__(self, probes: Sequence[Probe]) -> list[Answer]:
        from naive import read

        return [self.naive.attribute(read(p.path), p.caption, self.seeds, self.steps, batch=self.batch) for p in probes]


Contestant = tuple[Callable[..., Callable[[Sequence[Probe]], list[Answer]]], Mapping[str, Any]]


class Contestants:
    """Processes by name. They end with the `with` block."""

    def __init__(self, **contestants: Contestant) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes: dict[str, Connection] = {}
        self._processes = []
        self._rounds = 0
        for name, (make, options) in contestants.items():
            self._pipes[name], theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, make, dict(options)), name=name, daemon=True)
            process.start()
            theirs.close()
            self._processes.append(process)

    def __enter__(self) -> Contestants:
        return self

    def __exit__(self, *_: object) -> None:
        for pipe in self._pipes.values():
            pipe.close()
        for process in self._processes:
            process.join()

    def __call__(self, probes: Sequence[Probe], among: Sequence[str] = ()) -> dict[str, Turn]:
        """The turns of all contestants, or of those in `among`."""
        names = list(among or self._pipes)
        first = self._rounds % len(names)
        self._rounds += 1
        turns = {}
        for name in (*names[first:], *names[:first]):
            self._pipes[name].send(list(probes))
            turn = self._pipes[name].recv()
            if isinstance(turn, str):
                raise SystemExit(f"{name}: {turn}")
            turns[name] = turn
        return turns


def _serve(pipe: Connection, make: Callable[..., Callable[[Sequence[Probe]], list[Answer]]], options: dict[str, Any]) -> None:
    try:
        answer = make(**options)
        while True:
            probes = pipe.recv()
            clock = getattr(answer, "clock", None)
            before, cpu, start = clock.seconds if clock else 0.0, time.process_time(), time.perf_counter()
            answers = answer(probes)
            seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
            engines = clock.seconds - before if clock else float("nan")
            pipe.send(Turn(answers, seconds, cpu, engines, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))
    except EOFError:  # the block has ended
        pass
    except Exception:
        pipe.send(traceback.format_exc())
