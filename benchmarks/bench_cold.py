"""Time from process start to verdict, and peak memory: `resynth attribute` against the naive diffusers loop.

One probe, four candidates, one reference each, eight steps, one thread. New processes run in turn, with their files in the
page cache. The loop gets the caption as an argument; ours computes it. The loop's pipelines are restored from the zoo (a minute)
unless a folder of them is named:

    python benchmarks/bench_cold.py --json [--pipelines DIR] [--pairs 7] [--picture FILE]
"""

# First, because it fixes the number of threads, which NumPy reads when it is imported.
from timing import Row, commit, processor, show

# isort: split
import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from resynth_fast import zoo

HERE = Path(__file__).parent
STEPS, REFERENCES = 8, 1
GOALS = {"wall": 5.0, "cpu": None, "peak memory": 2.0}
UNITS = {"wall": "seconds", "cpu": "seconds", "peak memory": "MB"}
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    """One process, from its start to its end."""

    figures: dict[str, float]
    output: dict[str, Any]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--pipelines", type=Path, help="folder written by `python -m resynth_fast.export.zoo restore`")
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--picture", type=Path, default=HERE.parent / "examples" / "07.png")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        pipelines = arguments.pipelines or restored(Path(temporary))
        show(rows(arguments.picture, pipelines, arguments.pairs), as_json=arguments.json)


def restored(to: Path) -> Path:
    names = [bundle.name for bundle in zoo.candidates()]
    subprocess.run([sys.executable, "-P", "-m", "resynth_fast.export.zoo", "restore", *names, "--to", to], check=True, capture_output=True)
    return to


def rows(picture: Path, pipelines: Path, pairs: int) -> list[Row]:
    """Rows for wall time, CPU time and peak memory: medians over `pairs` interleaved pairs of runs."""
    names = [bundle.name for bundle in zoo.candidates()]
    ours = [sys.executable, "-P", "-m", "resynth_fast.cli", "attribute", str(picture), "--candidates", "zoo:", "--format", "json"]
    ours += ["--references", str(REFERENCES), "--steps", str(STEPS), "--threads", "1"]
    [record] = run(ours).output["records"]  # also brings the files into memory
    naive = [sys.executable, str(HERE / "naive.py"), str(picture), "--pipelines", str(pipelines), "--candidates", *names]
    naive += ["--references", str(REFERENCES), "--steps", str(STEPS), "--threads", "1", "--caption", record["evidence"]["caption"]]
    answer = run(naive).output
    # The two methods score differently, so their labels may differ. Their candidates must not.
    if sorted(answer["distances"]) != sorted(c["name"] for c in record["candidates"]):
        raise SystemExit(f"different candidates: {sorted(answer['distances'])}")
    samples: dict[str, list[dict[str, float]]] = {"ours": [], "naive": []}
    for pair in range(pairs):
        for name, command in sorted((("ours", ours), ("naive", naive)), reverse=bool(pair % 2)):
            samples[name].append(run(command).figures)
    return [row(case, *([figures[case] for figures in samples[name]] for name in ("ours", "naive"))) for case in GOALS]


def run(command: list[str]) -> Run:
    """Run a command that prints one JSON document. CPU time and peak memory come from the kernel's accounting (wait4)."""
    with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=stdout, stderr=stderr, env=ENVIRONMENT)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            stderr.seek(0)
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}: {stderr.read()[-2000:]}")
        stdout.seek(0)
        figures = {"wall": wall, "cpu": usage.ru_utime + usage.ru_stime, "peak memory": usage.ru_maxrss / 1024}
        return Run(figures, json.loads(stdout.read()))


def row(case: str, ours: list[float], naive: list[float]) -> Row:
    ratio, goal = float(np.median(naive) / np.median(ours)), GOALS[case]
    return Row(
        bench="cold",
        case=f"{case}, {REFERENCES} reference x {STEPS} steps, {len(ours)} pairs",
        unit=UNITS[case],
        ours=float(np.median(ours)),
        ours_p90=float(np.percentile(ours, 90)),
        peer=float(np.median(naive)),
        peer_p90=float(np.percentile(naive, 90)),
        peer_name="naive diffusers loop",
        ratio=ratio,
        goal=goal,
        met=None if goal is None else ratio >= goal,
        limit_pct=None,
        device=processor(),
        threads=1,
        commit=commit(),
    )


if __name__ == "__main__":
    main()
