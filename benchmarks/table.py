"""Gathers what the benchmarks print into benchmarks/results, and makes the table of benchmarks/README.md from there.

python benchmarks/table.py               run every short bench_*.py, keep its rows, write the table
python benchmarks/table.py --all         the long ones too, which take hours together
python benchmarks/table.py topk step     the same for these two only
python benchmarks/table.py --table       write the table from the rows that are kept
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
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results"
LONG = ("backends", "cold", "end_to_end", "gpu", "memory", "racing", "scaling", "steps")
"""Whole attributions and large networks: many minutes each, run where they are named."""
BEGIN, END = "<!-- table: written by benchmarks/table.py -->", "<!-- end of table -->"


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
            print(f"left out, for they are long: {', '.join(LONG)}; name them, or --all", file=sys.stderr)
    readme = HERE / "README.md"
    before, _, rest = readme.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    readme.write_text(f"{before}{BEGIN}\n\n{table()}\n{END}{after}")


def names(*, long: bool) -> list[str]:
    """The benchmarks of this folder, with the long ones or without."""
    found = sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))
    return [name for name in found if long or name not in LONG]


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


def table() -> str:
    """Of each case the rows that have a goal, else the fastest peer's."""
    lines = []
    for record in records():
        lines += [f"`{record['command']}`, commit {record['commit']}, {record['machine']}", ""]
        lines += ["| bench | case | ours | peer | ratio | goal | limit reached |", "|---|---|---|---|---|---|---|"]
        lines += [line_of(row) for row in shown(record["rows"])] + [""]
    if not list(RESULTS.glob("*-gpu.json*")):
        lines += ["GPU: nothing here was run on one.", ""]
    return "\n".join(lines)


def records() -> Iterator[dict[str, Any]]:
    """What is kept: benchmarks' own files, and the rows that `gpu.sh` has gathered."""
    for path in sorted(RESULTS.glob("*.json")):
        yield json.loads(path.read_text())
    for path in RESULTS.glob("*-gpu.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        yield {"command": "benchmarks/gpu.sh", "commit": rows[-1]["commit"], "machine": rows[-1]["device"], "rows": rows}


def shown(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row or more of each case."""
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
