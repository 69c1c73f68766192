"""Attribution with a memory budget of half the size of all engines, against attribution without a budget.

    python benchmarks/bench_memory.py [--json]

New processes run in turn. The memory of engines is the pool's own account. The memory of the process is the peak of its
resident memory less its resident memory before the first engine was loaded. The budget covers engines only: a wave's
working memory and the reading of a graph come on top, with and without a budget.
"""

# First, because it fixes the number of threads, which NumPy reads when it is imported.
from timing import Row, commit, processor, show

# isort: split
import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

EXAMPLES = Path(__file__).parents[1] / "examples"
RUNS, PROBES, CHUNK = 5, 8, 4
CHILD = """
import json, sys, time
from pathlib import Path
from resynth_fast import Attributor, images
def status(key):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key)) / 1e3
budget, folder, probes, chunk = json.loads(sys.argv[1])
attributor = Attributor.open(references=2, threads=1, memory_budget=budget)
pictures = [images.read(path) for path in sorted(Path(folder).glob("*.png"))[:probes]]
attributor.space([pictures[0].pixels])
before, start = status("VmRSS"), time.perf_counter()
verdicts = [v for i in range(0, probes, chunk) for v in attributor(pictures[i:i + chunk])]
seconds, account = time.perf_counter() - start, attributor.pool.account
print(json.dumps({"rss_mb": status("VmHWM") - before, "engines_mb": account.peak_bytes / 1e6, "seconds": seconds, "loads": account.loads,
    "evictions": account.evictions, "waited_s": account.waited_ms / 1e3, "answers": [[v.status, v.candidates[0].name] for v in verdicts]}))
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--runs", type=int, default=RUNS)
    arguments = parser.parse_args()
    budget = int(run(None)["engines_mb"] * 1e6 / 2)
    results: dict[str, list[dict[str, Any]]] = {"half": [], "all": []}
    for _ in range(arguments.runs):
        results["half"].append(run(budget))
        results["all"].append(run(None))
    if any(r["answers"] != results["all"][0]["answers"] for runs in results.values() for r in runs):
        raise SystemExit("the verdicts with and without a budget differ")
    show([row(case, results, budget) for case in ("engines_mb", "rss_mb", "seconds")], as_json=arguments.json)


def run(budget: int | None) -> dict[str, Any]:
    """The figures of one new process."""
    command = [sys.executable, "-c", CHILD, json.dumps([budget, str(EXAMPLES), PROBES, CHUNK])]
    result: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return result


def row(case: str, results: dict[str, list[dict[str, Any]]], budget: int) -> Row:
    half, whole = ([r[case] for r in results[name]] for name in ("half", "all"))
    loads, waited = (float(np.median([r[key] for r in results["half"]])) for key in ("loads", "waited_s"))
    names = {
        "engines_mb": f"peak of engines, budget {budget / 1e6:.1f} MB",
        "rss_mb": "peak of the process beyond itself",
        "seconds": f"{PROBES} probes; {loads:.0f} loads, waited {waited:.2f} s for weights",
    }
    ratio = float(np.median(whole) / np.median(half))
    goal = 2.0 if case == "engines_mb" else None
    return Row(
        bench="memory",
        case=names[case],
        unit="seconds" if case == "seconds" else "MB",
        ours=float(np.median(half)),
        ours_p90=float(np.percentile(half, 90)),
        peer=float(np.median(whole)),
        peer_p90=float(np.percentile(whole, 90)),
        peer_name="no budget",
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
