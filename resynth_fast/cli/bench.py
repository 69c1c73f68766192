"""`resynth bench`: latency and throughput of attribution by concurrency, in the vocabulary of Triton's perf_analyzer.

Clients in a closed loop: each asks again as soon as it is answered. What waits is examined together, as a server would.
A figure counts once it is stable: in three windows one after another, throughput and mean latency within a tenth of their mean.
"""

from __future__ import annotations

import os
import queue
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .. import images, zoo
from ..attributor import Attributor
from ..candidates import ZOO, GenerativeCandidate, find
from ..engines.pool import EnginePool
from ..errors import ConfigError
from ..scheduler import costs
from ..types import Picture
from . import output, roofline

STABLE_WINDOWS, STABILITY = 3, 0.1
MAX_WINDOWS = 10
MAX_BATCH = 8
PROBES = 8
PERCENTILES = (50, 90, 95, 99)
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Answered:
    """One request: when it was sent, taken up and answered, and the milliseconds of its stages."""

    sent_s: float
    begun_s: float
    done_s: float
    stages_ms: dict[str, float]


@dataclass(frozen=True, slots=True)
class Window:
    """What was answered in one stretch of time."""

    seconds: float
    answered: list[Answered]

    @property
    def throughput(self) -> float:
        return len(self.answered) / self.seconds

    @property
    def latency_ms(self) -> float:
        return float(np.mean([1000 * (a.done_s - a.sent_s) for a in self.answered])) if self.answered else float("nan")


def run(
    inputs: Sequence[str],
    concurrencies: Sequence[int],
    *,
    window_s: float,
    cold: bool,
    progress: Progress,
    candidates: Sequence[str],
    references: int,
    steps: int,
    race: bool,
    backend: str,
    threads: int | None,
    memory_budget: int | None,
) -> dict[str, Any]:
    """What the command line does: `measure` on given pictures, or on eight that the zoo draws of held-out captions."""

    def make() -> Attributor:
        return Attributor.open(
            candidates, backend=backend, threads=threads, memory_budget=memory_budget, references=references, steps=steps, race=race
        )

    with tempfile.TemporaryDirectory() as folder:
        files = images.paths(inputs) if inputs else _drawn(Path(folder), backend, threads)
        arguments = ["attribute", str(files[0]), "--references", str(references), "--steps", str(steps), "--backend", backend]
        arguments += [text for candidate in candidates for text in ("--candidates", candidate)]
        arguments += ["--threads", str(threads or 0)] + ["--race"] * race
        arguments += ["--memory-budget", str(memory_budget)] * (memory_budget is not None)
        probes = [images.read(path) for path in files]
        return measure(make, probes, concurrencies, window_s=window_s, cold=arguments if cold else (), progress=progress)


def _drawn(folder: Path, backend: str, threads: int | None) -> list[Path]:
    found = find([ZOO], EnginePool(backend, threads=threads or os.cpu_count() or 1))
    makers = [candidate for candidate in found if isinstance(candidate, GenerativeCandidate)]
    files = []
    for i, caption in enumerate(zoo.prompts()[:PROBES]):
        [pixels] = makers[i % len(makers)].make([caption], [(1 << 40) + i], 8)
        files.append(folder / f"{i}.png")
        Image.fromarray(pixels).save(files[-1])
    return files


def show(result: dict[str, Any]) -> None:
    """The document as tables."""
    columns = ("p50", "p90", "p95", "p99")
    output.table(
        ["clients", "probes/s", *(f"{c} ms" for c in columns), "queue ms", "compute ms", "stable"],
        [
            [
                str(r["concurrency"]),
                f"{r['throughput_per_s']:.2f}",
                *(f"{r['latency_ms'][c]:.0f}" for c in columns),
                f"{r['queue_ms']:.0f}",
                f"{r['compute_ms']:.0f}",
                "yes" if r["stable"] else "no",
            ]
            for r in result["concurrency"]
        ],
    )
    roof = result["roofline"]
    output.table(
        ["candidate", "component", "MFLOP a row", "ms a row", "GFLOP/s", f"of {roof['peak_flops_per_s'] / 1e9:.0f}"],
        [
            [
                r["candidate"],
                r["component"],
                f"{r['flops'] / 1e6:.0f}",
                f"{r['row_ms']:.2f}",
                f"{r['flops_per_s'] / 1e9:.1f}",
                f"{100 * r['share_of_peak']:.0f} %",
            ]
            for r in roof["components"]
        ],
    )
    start = {name.removesuffix("_ms"): f"{ms:.0f} ms" for name, ms in result["start"].items() if ms is not None}
    print(", ".join(f"{name} {text}" for name, text in start.items()) + f"; peak memory {result['peak_rss_bytes'] / 1e6:.0f} MB")


def measure(
    make: Callable[[], Attributor],
    probes: Sequence[Picture],
    concurrencies: Sequence[int],
    *,
    window_s: float,
    cold: Sequence[str] = (),
    progress: Progress = lambda done, of: None,
) -> dict[str, Any]:
    """All figures, as one JSON document; what graphs cost is kept for the scheduler. `cold`: arguments of a command line, timed in a
    process of its own, whose peak memory is the one told. ConfigError.
    """
    for concurrency in concurrencies:
        if not 1 <= concurrency <= 256:
            raise ConfigError(f"concurrency is {concurrency}; it must be 1 … 256")
    if not window_s > 0:
        raise ConfigError(f"window is {window_s}; it must be seconds above 0")
    cold_ms, peak = _cold(cold) if cold else (None, None)
    start = time.perf_counter()
    attributor = make()
    [verdict] = attributor.attribute(probes[:1])
    first_s = time.perf_counter() - start
    runs = []
    for i, concurrency in enumerate(concurrencies):
        progress(i, len(concurrencies))
        runs.append(_stable(attributor, probes, concurrency, window_s))
    progress(len(concurrencies), len(concurrencies))
    attributor.pool.costs.write(costs.stored(), attributor.pool.machine)
    return {
        "start": {"cold_ms": cold_ms, "cached_ms": 1000 * first_s, "warm_ms": runs[0]["latency_ms"]["p50"]},
        "concurrency": runs,
        "peak_rss_bytes": peak or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "roofline": roofline.shares(attributor.candidates.values(), attributor.pool),
        "engines": {"budget_bytes": attributor.pool.budget_bytes, **asdict(attributor.pool.account)},
        "references": attributor.options.references,
        "steps": attributor.options.steps,
        "candidates": list(attributor.candidates),
        "window_s": window_s,
        "threads": attributor.pool.threads,
        "cores": os.cpu_count(),
        "provenance": {key: verdict.provenance[key] for key in ("resynth_fast", "backend", "isa")},
    }


def summary(windows: Sequence[Window], concurrency: int, stable: bool) -> dict[str, Any]:
    """Of several windows: throughput, latency and its parts."""
    answered = [a for window in windows for a in window.answered]
    latency = np.array([1000 * (a.done_s - a.sent_s) for a in answered])
    stages = answered[0].stages_ms
    return {
        "concurrency": concurrency,
        "stable": stable,
        "requests": len(answered),
        "throughput_per_s": len(answered) / sum(window.seconds for window in windows),
        "latency_ms": {"avg": float(latency.mean()), "std": float(latency.std())}
        | {f"p{p}": float(np.percentile(latency, p)) for p in PERCENTILES},
        "queue_ms": float(np.mean([1000 * (a.begun_s - a.sent_s) for a in answered])),
        "compute_ms": float(np.mean([1000 * (a.done_s - a.begun_s) for a in answered])),
        "stages_ms": {stage: float(np.mean([a.stages_ms[stage] for a in answered])) for stage in stages},
    }


def settled(windows: Sequence[Window]) -> bool:
    """Whether the last windows agree."""
    last = windows[-STABLE_WINDOWS:]
    if len(last) < STABLE_WINDOWS or not all(window.answered for window in last):
        return False
    for values in ([window.throughput for window in last], [window.latency_ms for window in last]):
        mean = sum(values) / len(values)
        if any(abs(value - mean) > STABILITY * mean for value in values):
            return False
    return True


def _stable(attributor: Attributor, probes: Sequence[Picture], concurrency: int, window_s: float) -> dict[str, Any]:
    waiting: queue.SimpleQueue[tuple[int, float]] = queue.SimpleQueue()
    windows: list[Window] = []
    sent = 0

    def send() -> None:
        nonlocal sent
        waiting.put((sent % len(probes), time.perf_counter()))
        sent += 1

    for _ in range(concurrency):
        send()
    while len(windows) < MAX_WINDOWS and not settled(windows):
        start, answered = time.perf_counter(), list[Answered]()
        while (now := time.perf_counter()) - start < window_s or not answered:
            taken = [waiting.get() for _ in range(min(waiting.qsize(), MAX_BATCH))]
            verdicts = attributor.attribute([probes[i] for i, _ in taken])
            done = time.perf_counter()
            for (_, sent_s), verdict in zip(taken, verdicts, strict=True):
                answered.append(Answered(sent_s, now, done, dict(verdict.timing_ms)))
                send()
        windows.append(Window(time.perf_counter() - start, answered))
    return summary(windows[-STABLE_WINDOWS:], concurrency, settled(windows))


def _cold(arguments: Sequence[str]) -> tuple[float, int]:
    """Milliseconds of a fresh process from its start to its end, and its peak memory in bytes."""
    with tempfile.TemporaryFile("w+") as stderr:
        start = time.perf_counter()
        # -P: what is installed runs, not a folder of the same name in the current directory.
        process = subprocess.Popen([sys.executable, "-P", "-m", "resynth_fast.cli", *arguments], stdout=subprocess.DEVNULL, stderr=stderr)
        _, status, usage = os.wait4(process.pid, 0)
        ms = 1000 * (time.perf_counter() - start)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            stderr.seek(0)
            raise ConfigError(f"the cold run ended with {process.returncode}: {stderr.read()[-500:].strip()}")
    return ms, usage.ru_maxrss * 1024
