"""One way to time for all benchmarks: verified first, interleaved, one thread, median and 90th percentile."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy loads its BLAS: small kernels lose to their own barriers

import argparse
import dataclasses
import functools
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

ROUNDS = 31
SAMPLE_S = 1e-3  # of calls timed together, so that the clock's own cost disappears


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Ours beside one peer; times in microseconds a call, the 90th percentile over samples of about a millisecond."""

    bench: str
    case: str
    ours: float
    ours_p90: float
    peer: float
    peer_p90: float
    peer_name: str
    ratio: float
    """Peer over ours: above 1, ours is faster."""
    goal: float | None
    met: bool | None
    limit_pct: float | None
    """Share of the physical limit that ours reaches."""
    device: str
    threads: int
    commit: str


def compare(
    bench: str,
    case: str,
    ours: Callable[[], object],
    peers: Mapping[str, Callable[[], object]],
    *,
    verify: Callable[[object, object], None],
    goals: Mapping[str, float] | None = None,
    limit: Callable[[], object] | None = None,
    device: str | None = None,
) -> list[Row]:
    """Time `ours` beside every peer, turn by turn, so that a busy moment hits all of them.

    Args:
        verify: called with our result and each peer's before anything is timed; raises when they disagree.
        goals: smallest acceptable ratio, by peer.
        limit: something that takes as long as physics demands, such as one pass over the same bytes.
        device: what ours ran on; the processor unless given.
    """
    expected = ours()
    for peer in peers.values():
        verify(expected, peer())
    contestants = {"": ours, **peers, **({"limit": limit} if limit else {})}
    samples = _interleave(contestants)
    median = {name: float(np.median(times)) for name, times in samples.items()}
    p90 = {name: float(np.percentile(times, 90)) for name, times in samples.items()}
    rows = []
    for name in peers:
        ratio, goal = median[name] / median[""], (goals or {}).get(name)
        rows.append(
            Row(
                bench=bench,
                case=case,
                ours=median[""],
                ours_p90=p90[""],
                peer=median[name],
                peer_p90=p90[name],
                peer_name=name,
                ratio=ratio,
                goal=goal,
                met=None if goal is None else ratio >= goal,
                limit_pct=100 * median["limit"] / median[""] if limit else None,
                device=device or processor(),
                threads=int(os.environ["OMP_NUM_THREADS"]),
                commit=_commit(),
            )
        )
    return rows


def report(rows: list[Row]) -> None:
    """Print the rows: as a table, or one JSON object a line where the command line says --json."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    if parser.parse_args().json:
        for row in rows:
            print(json.dumps(dataclasses.asdict(row)))
        return
    print(f"{rows[0].device}, {rows[0].threads} thread(s), commit {rows[0].commit}; microseconds, median (p90)")
    for row in rows:
        goal = "" if row.goal is None else f"  goal {row.goal:g} {'met' if row.met else 'MISSED'}"
        limit = "" if row.limit_pct is None else f"  {row.limit_pct:.0f} % of the limit"
        times = f"{row.ours:9.2f} ({row.ours_p90:.2f})  {row.peer_name} {row.peer:.2f} ({row.peer_p90:.2f})"
        print(f"{row.bench}  {row.case}  {times}  x{row.ratio:.2f}{goal}{limit}")


def _interleave(contestants: Mapping[str, Callable[[], object]]) -> dict[str, list[float]]:
    """Microseconds a call, ROUNDS samples each."""
    counts = {}
    for name, call in contestants.items():
        call()
        counts[name] = max(1, round(SAMPLE_S / max(_seconds(call, 3), 1e-9)))
    samples: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(ROUNDS):
        for name, call in contestants.items():
            samples[name].append(1e6 * _seconds(call, counts[name]))
    return samples


def _seconds(call: Callable[[], object], count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - start) / count


@functools.cache
def processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.split(": ", 1)[1] for line in lines if line.startswith("model name")), platform.machine())


@functools.cache
def _commit() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        print("no commit: not a git checkout", file=sys.stderr)
        return "unknown"
