"""The timing of all benchmarks: results verified first, samples interleaved, one thread, median and 90th percentile."""

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
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np

Result = TypeVar("Result")

ROUNDS = 31
ALLOWANCE = "allowance on an H100"
SAMPLE_S = 1e-3  # calls are timed together for about this long, so that the cost of the clock disappears
LONG_S = 0.2  # longer calls are not repeated to refill the cache: they hardly depend on its contents


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Ours against one peer: medians in `unit` per call, and 90th percentiles over samples of about a millisecond."""

    bench: str
    case: str
    ours: float
    ours_p90: float | None
    peer: float
    peer_p90: float | None
    peer_name: str
    ratio: float
    """Peer divided by ours: above 1, ours is faster."""
    goal: float | None
    met: bool | None
    limit_pct: float | None
    """Share of the physical limit that ours reaches."""
    device: str
    threads: int
    commit: str
    unit: str = "microseconds"
    error: float | None = None
    """Largest difference of our result from the peer's, relative to the peer's largest value; None if not measured."""


def compare(
    bench: str,
    case: str,
    ours: Callable[[], Result],
    peers: Mapping[str, Callable[[], Result]],
    *,
    verify: Callable[[Result, Result], None],
    goals: Mapping[str, float] | None = None,
    best: float | None = None,
    among: Collection[str] | None = None,
    limit: Callable[[], object] | None = None,
    device: str | None = None,
    finish: Callable[[], object] = lambda: None,
) -> list[Row]:
    """Time `ours` and every peer in turn, so that a busy moment hits all of them.

    Args:
        verify: called with our result and each peer's before anything is timed; raises when they disagree.
        goals: smallest acceptable ratio, by peer.
        best: smallest acceptable ratio to the fastest peer, which becomes that row's goal.
        among: the peers that `best` refers to, if some do less work than ours; default: all.
        limit: a call that takes the physical minimum of time, such as one pass over the same bytes.
        device: the device that ours ran on; default: the processor.
        finish: called at the end of every sample and included in its time, for calls that only enqueue (GPU synchronisation).
    """
    expected = ours()
    for peer in peers.values():
        verify(expected, peer())
    contestants: dict[str, Callable[[], object]] = {"": ours, **peers, **({"limit": limit} if limit else {})}
    samples = interleave(contestants, finish)
    median = {name: float(np.median(times)) for name, times in samples.items()}
    p90 = {name: float(np.percentile(times, 90)) for name, times in samples.items()}
    wanted = dict(goals or {})
    if best is not None:
        fastest = min((name for name in peers if among is None or name in among), key=median.__getitem__)
        wanted[fastest] = max(best, wanted.get(fastest, best))
    return [
        measured(
            bench,
            case,
            ours=median[""],
            ours_p90=p90[""],
            peer=median[name],
            peer_p90=p90[name],
            peer_name=name,
            goal=wanted.get(name),
            limit_pct=100 * median["limit"] / median[""] if limit else None,
            device=device,
        )
        for name in peers
    ]


def measured(
    bench: str,
    case: str,
    *,
    ours: float,
    peer: float,
    peer_name: str,
    goal: float | None,
    ours_p90: float | None = None,
    peer_p90: float | None = None,
    limit_pct: float | None = None,
    device: str | None = None,
    unit: str = "microseconds",
    ratio: float | None = None,
    error: float | None = None,
) -> Row:
    """A row with device, commit and all derived figures filled in. `ratio` replaces `peer / ours`."""
    ours, peer = float(ours), float(peer)  # NumPy's numbers are not JSON's
    ratio = peer / ours if ratio is None else ratio
    return Row(
        bench=bench,
        case=case,
        ours=ours,
        ours_p90=ours_p90,
        peer=peer,
        peer_p90=peer_p90,
        peer_name=peer_name,
        ratio=ratio,
        goal=goal,
        met=None if goal is None else ratio >= goal,
        limit_pct=limit_pct,
        device=device or processor(),
        threads=int(os.environ["OMP_NUM_THREADS"]),
        commit=commit(),
        unit=unit,
        error=error,
    )


def allowed(row: Row, microseconds: float) -> Row:
    """A copy of `row` whose peer is an absolute goal in microseconds, for an H100."""
    return dataclasses.replace(
        row, peer=microseconds, peer_p90=None, peer_name=ALLOWANCE, ratio=microseconds / row.ours, goal=1.0, met=row.ours <= microseconds
    )


def run(cpu: Callable[[], list[Row]], gpu: Callable[[], list[Row]] | None = None) -> None:
    """The command line of a benchmark: measure, then print a table or one JSON object per line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--gpu", action="store_true", help="the CUDA kernels instead of the processor's")
    arguments = parser.parse_args()
    if not arguments.gpu:
        rows = cpu()
    elif gpu:
        rows = gpu()
    else:
        rows = []
        print("this benchmark has no GPU rows", file=sys.stderr)
    show(rows, as_json=arguments.json)


def show(rows: Iterable[Row], *, as_json: bool) -> None:
    """Print rows as a table or as one JSON object per line. JSON lines appear as soon as they are measured."""
    if as_json:
        for row in rows:
            print(json.dumps(dataclasses.asdict(row)), flush=True)
    elif table := list(rows):
        _print_table(table)


def _print_table(rows: list[Row]) -> None:
    print(f"{rows[0].device}, {rows[0].threads} thread(s), commit {rows[0].commit}; median (p90)")
    for row in rows:
        ours, peer = (_median_and_p90(*pair) for pair in ((row.ours, row.ours_p90), (row.peer, row.peer_p90)))
        times = f"{ours:>16}  {row.peer_name} {peer} {row.unit}"
        goal = "" if row.goal is None else f"  goal {row.goal:g} {'met' if row.met else 'MISSED'}"
        limit = "" if row.limit_pct is None else f"  {row.limit_pct:.0f} % of the limit"
        error = "" if row.error is None else f"  error {row.error:.0e}"
        print(f"{row.bench}  {row.case}  {times}  x{row.ratio:.2f}{goal}{limit}{error}")


def _median_and_p90(median: float, p90: float | None) -> str:
    return f"{median:.2f}" if p90 is None else f"{median:.2f} ({p90:.2f})"


def interleave(
    contestants: Mapping[str, Callable[[], object]], finish: Callable[[], object] = lambda: None, *, rounds: int = ROUNDS
) -> dict[str, list[float]]:
    """Microseconds per call of each contestant: `rounds` samples, taken in turn; `finish` as in `compare`."""

    def seconds(call: Callable[[], object], count: int) -> float:
        start = time.perf_counter()
        for _ in range(count):
            call()
        finish()
        return (time.perf_counter() - start) / count

    usual = {}
    for name, call in contestants.items():
        once = seconds(call, 1)  # warms up
        usual[name] = seconds(call, 1 if once > SAMPLE_S else 3)
    samples: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, call in contestants.items():
            if usual[name] <= LONG_S:
                seconds(call, 1)  # refills the cache, which the other contestants have used
            samples[name].append(1e6 * seconds(call, max(1, round(SAMPLE_S / usual[name]))))
    return samples


@functools.cache
def processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.split(": ", 1)[1] for line in lines if line.startswith("model name")), platform.machine())


@functools.cache
def commit() -> str:
    """The measured commit, as `git describe` names it."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        print("no commit: not a git checkout", file=sys.stderr)
        return "unknown"
