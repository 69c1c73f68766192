"""Keeps what the benchmarks print in benchmarks/results, and writes docs/results.md from it.

python benchmarks/table.py               run every short bench_*.py, keep its rows, write the page
python benchmarks/table.py --all         run the long ones too, which take hours together
python benchmarks/table.py topk step     run these two only
python benchmarks/table.py --table       run nothing: write the page from the rows that are kept
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results"
FIGURES = RESULTS / "figures.json"
"""Figures that no bench_*.py prints: question, result, command and the commit that recorded them."""
PAGE = HERE.parent / "docs" / "results.md"
LONG = ("backends", "cold", "copies", "end_to_end", "gpu", "memory", "racing", "scaling", "steps")
"""Whole attributions and large networks: many minutes each, so they run only where they are named."""

HEAD = """# Measured results

`python benchmarks/table.py --table` writes this page from [benchmarks/results](../benchmarks/results); do not edit it by hand.
Every figure stands beside the command that gives it and the commit that recorded it. An interval in brackets is a 95 %
bootstrap interval over captions. [benchmarks/README.md](../benchmarks/README.md) says how the benchmarks measure;
[families.md](families.md) has the parity of every exported family and the export of full-size pipelines.

The accuracy figures are about the embedded zoo, four small generators of drawn faces. They say nothing about real generators.
"""

BENCHMARKS = """
## Benchmarks

Each table is one run of one command. The ratio is the peer's figure over ours (for shares, ours over the peer's): above 1, ours
is better. The limit is what the machine allows, measured beside. A missed goal is printed in bold.

Milliseconds of one picture as probes, candidates and references grow, one thread (`benchmarks/bench_scaling.py`); flat or falling is right:

![Milliseconds a picture over the number of probes, candidates and references](scaling.svg)
"""


def main() -> None:
    """Run, keep, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="benchmarks to run, without bench_ and .py; all short ones unless given")
    parser.add_argument("--all", action="store_true", help="the long ones too")
    parser.add_argument("--gpu", action="store_true", help="the rows of the GPU")
    parser.add_argument("--table", action="store_true", help="run nothing")
    arguments = parser.parse_args()
    if not arguments.table:
        for name in arguments.names or names(long=arguments.all):
            gather(name, gpu=arguments.gpu)
        if not (arguments.names or arguments.all):
            print(f"not run, because they take long: {', '.join(LONG)}; name them, or use --all", file=sys.stderr)
    PAGE.write_text(page())


def names(*, long: bool) -> list[str]:
    """The benchmarks of this folder, with the long ones or without."""
    stems = sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))
    return [name for name in stems if long or name not in LONG]


def gather(name: str, *, gpu: bool) -> None:
    """Run one benchmark and keep its rows with the machine, the time and the command."""
    command = ["python", f"benchmarks/bench_{name}.py", "--json", *(["--gpu"] if gpu else [])]
    print("+", *command, file=sys.stderr)
    done = subprocess.run([sys.executable, *command[1:]], cwd=HERE.parent, check=True, stdout=subprocess.PIPE, text=True)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    if not rows:
        return
    record = {
        "command": " ".join(command),
        "commit": rows[0]["commit"],
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {rows[0]['device']}",
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "rows": rows,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}{'-gpu' if gpu else ''}.json").write_text(json.dumps(record, indent=1) + "\n")


def page() -> str:
    """docs/results.md."""
    lines = [HEAD]
    for section, figures in groupby(json.loads(FIGURES.read_text()), key=lambda figure: figure["section"]):
        lines += [f"## {section}", "", "| measured | result | command | commit |", "|---|---|---|---|"]
        lines += [f"| {f['measured']} | {f['result']} | `{f['command']}` | {f['commit']} |" for f in figures] + [""]
    lines += [BENCHMARKS.lstrip("\n")]
    for title, record in records():
        lines += [f"### {title}", "", f"`{record['command']}`, commit {record['commit']}, {record['machine']}", ""]
        lines += ["| bench | case | ours | peer | ratio | goal | limit reached |", "|---|---|---|---|---|---|---|"]
        lines += [line_of(row) for row in shown(record["rows"])] + [""]
    if not list(RESULTS.glob("*-gpu.json*")):
        lines += ["### GPU", "", "Nothing here was run on a GPU.", ""]
    return "\n".join(lines)


def records() -> Iterator[tuple[str, dict[str, Any]]]:
    """Title and record of every benchmark that is kept: the benchmarks' own files, and the rows that `gpu.sh` gathered."""
    for path in sorted(RESULTS.glob("*.json")):
        if path != FIGURES:
            yield path.stem.replace("_", " "), json.loads(path.read_text())
    for path in sorted(RESULTS.glob("*-gpu.jsonl")):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        yield path.stem, {"command": "benchmarks/gpu.sh", "commit": rows[-1]["commit"], "machine": rows[-1]["device"], "rows": rows}


def shown(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of each case that have a goal, or the row of the fastest peer if none has one."""
    cases: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        cases.setdefault((row["bench"], row["case"]), []).append(row)
    return [row for case in cases.values() for row in [r for r in case if r["goal"] is not None] or [min(case, key=lambda r: r["ratio"])]]


def line_of(row: dict[str, Any]) -> str:
    """A row in Markdown."""
    unit = {"microseconds": "µs"}.get(row.get("unit", "microseconds"), row.get("unit"))
    goal = "" if row["goal"] is None else f"≥ {row['goal']:.3g} {'met' if row['met'] else '**missed**'}"
    limit = "" if row["limit_pct"] is None else f"{row['limit_pct']:.0f} %"
    times = f"{row['ours']:.4g} {unit} | {row['peer_name']} {row['peer']:.4g} {unit}"
    error = "" if row.get("error") is None else f", error {row['error']:.0e}"
    return f"| {row['bench']} | {row['case']}{error} | {times} | {row['ratio']:.2f} | {goal} | {limit} |"


if __name__ == "__main__":
    main()
