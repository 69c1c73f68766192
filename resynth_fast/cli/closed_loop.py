"""Latency and throughput by concurrency, in the vocabulary of Triton's perf_analyzer.

Clients run in a closed loop: each sends its next request as soon as it has an answer. Requests that wait are attributed
together, as a server would. A figure counts once it is stable: in three consecutive windows, throughput and mean latency
are within a tenth of their mean.
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
from typing import Any

import numpy as np

from ..attributor import Attributor
from ..errors import ConfigError
from ..scheduler import costs
from ..types import Picture
from . import roofline

STABLE_WINDOWS, STABILITY = 3, 0.1
MAX_WINDOWS = 10
MAX_CONCURRENCY = 256
MAX_BATCH = 8
PERCENTILES = (50, 90, 95, 99)
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Answered:
    """One request: when it was sent, started and answered, and the milliseconds of its stages."""

    sent_s: float
    begun_s: float
    done_s: float
    stages_ms: dict[str, float]


@dataclass(frozen=True, slots=True)
class Window:
    """The requests that were answered in one window of time."""

    seconds: float
    answered: list[Answered]

    @property
    def throughput(self) -> float:
        return len(self.answered) / self.seconds

    @property
    def latency_ms(self) -> float:
        return float(np.mean([1000 * (a.done_s - a.sent_s) for a in self.answered])) if self.answered else float("nan")


def measure(
    open_attributor: Callable[[], Attributor],
    probes: Sequence[Picture],
    concurrencies: Sequence[int],
    *,
    window_s: float,
    cold: Sequence[str] = (),
    progress: Progress = lambda done, of: None,
) -> dict[str, Any]:
    """All figures as one JSON document. The measured costs of graphs are stored for the scheduler.

    Args:
        open_attributor: Opens the attributor; its time to the first verdict is the cached start.
        probes: Pictures that the clients send in turn.
        concurrencies: Numbers of clients, 1 … `MAX_CONCURRENCY`.
        window_s: Seconds of a window.
        cold: Arguments of `resynth`, timed in a process of their own, whose peak memory is then reported; empty: not timed.
        progress: Called with (done, of).

    Raises:
        ConfigError: A concurrency or the window is out of range, or the cold run failed.
    """
    _check(concurrencies, window_s)
    cold_ms, peak = _cold(cold) if cold else (None, None)
    start = time.perf_counter()
    attributor = open_attributor()
    [verdict] = attributor(probes[:1])
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


def _check(concurrencies: Sequence[int], window_s: float) -> None:
    for concurrency in concurrencies:
        if not 1 <= concurrency <= MAX_CONCURRENCY:
            raise ConfigError(f"--concurrency is {concurrency}; it must be 1 … {MAX_CONCURRENCY}")
    if not window_s > 0:
        raise ConfigError(f"--window is {window_s}; it must be more than 0 seconds")


def summary(windows: Sequence[Window], concurrency: int, stable: bool) -> dict[str, Any]:
    """Throughput, latency and its parts over several windows."""
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
    """Whether the last windows agree in throughput and latency."""
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
            verdicts = attributor([probes[i] for i, _ in taken])
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
        # -P: run the installed package, not a folder of the same name in the current directory.
        process = subprocess.Popen([sys.executable, "-P", "-m", "resynth_fast.cli", *arguments], stdout=subprocess.DEVNULL, stderr=stderr)
        _, status, usage = os.wait4(process.pid, 0)
        ms = 1000 * (time.perf_counter() - start)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            stderr.seek(0)
            raise ConfigError(
                f"the cold run failed with exit code {process.returncode}: {stderr.read()[-500:].strip()}; leave it out with --no-cold"
            )
    return ms, usage.ru_maxrss * 1024
