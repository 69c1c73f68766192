"""What commands print: results on stdout or in a file, progress on a terminal's stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..files import write_output
from ..images import printable
from ..report.record import Record
from ..report.text import FORMATS, table_lines

KNOWN_COPY = "known-copy"
"""What `--fail-on` calls a picture that is a copy of a given one, whatever its status."""
FAIL_ON = ("attributed", "inconclusive", "unknown", KNOWN_COPY)


def check(format: str, allowed: Iterable[str] = FORMATS) -> None:
    """ConfigError unless `format` is allowed."""
    if format not in allowed:
        raise ConfigError(f"--format is {format!r}; it must be {', '.join(allowed)}")


def progress(task_name: str) -> Callable[[int, int], None]:
    """A function (done, of) that draws a bar on a terminal's stderr and does nothing elsewhere."""
    if not sys.stderr.isatty():
        return lambda done, of: None
    from rich.console import Console
    from rich.progress import Progress

    bar = Progress(console=Console(stderr=True), transient=True)
    task = bar.add_task(task_name, total=None)

    def update(done: int, of: int) -> None:
        bar.start()
        bar.update(task, completed=done, total=of)
        if done >= of:
            bar.stop()

    return update


def write(records: Iterable[Record], format: str, path: Path | None) -> tuple[bool, list[str]]:
    """Print records, or write them to `path`; return whether one failed, and the statuses of all, with KNOWN_COPY for each copy."""
    failed, statuses = False, []

    def observed() -> Iterator[Record]:
        nonlocal failed
        for record in records:
            failed = failed or record["error"] is not None
            statuses.extend([record["verdict"]["status"], *[KNOWN_COPY] * bool(record["known_copies"])])
            yield record

    lines = FORMATS[format](observed())
    if path is None:
        for line in lines:
            print(line, flush=True)
    else:
        write_output(f"--output {printable(str(path))!r}", path, "".join(line + "\n" for line in lines))
    return failed, statuses


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A plain table on stdout."""
    for line in table_lines(header, rows):
        print(line)


def print_evaluation(result: dict[str, Any], format: str) -> None:
    """The result of `resynth evaluate`."""
    from ..evaluation import rows

    if format == "json":
        print(json.dumps(result, indent=2))
    else:
        print("\n".join(rows.csv_lines(rows.of(result)) if format == "csv" else rows.text_lines(result)))
