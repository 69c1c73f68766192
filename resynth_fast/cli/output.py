"""What the command line prints: tables for people, JSON, JSON lines and CSV for programs, progress on a terminal."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..images import printable
from ..report.record import Record, document

FORMATS = ("table", "json", "jsonl", "csv")
_COLUMNS = ("path", "status", "label", "family", "probability", "margin", "consistency", "caption", "warnings", "error")


def check(format: str, allowed: Sequence[str] = FORMATS) -> None:
    """ConfigError unless `format` is allowed."""
    if format not in allowed:
        raise ConfigError(f"--format is {format!r}; it must be {', '.join(allowed)}")


def progress(what: str = "attributing") -> Any:
    """A function (done, of): a bar on a terminal's stderr, silent elsewhere."""
    if not sys.stderr.isatty():
        return lambda done, of: None
    from rich.console import Console
    from rich.progress import Progress

    bar = Progress(console=Console(stderr=True), transient=True)
    task = bar.add_task(what, total=None)

    def update(done: int, of: int) -> None:
        bar.start()
        bar.update(task, completed=done, total=of)
        if done >= of:
            bar.stop()

    return update


def write(records: Iterable[Record], format: str, path: Path | None) -> tuple[bool, list[str]]:
    """Print records, or write them to `path`; says whether one has failed, and the statuses of the others."""
    failed, statuses = False, []

    def watched() -> Iterator[Record]:
        nonlocal failed
        for record in records:
            failed = failed or record["error"] is not None
            statuses.append(record["verdict"]["status"])
            yield record

    lines = _RENDER[format](watched())
    if path is None:
        for line in lines:
            print(line, flush=True)
    else:
        temporary = path.with_name(path.name + ".part")
        temporary.write_text("".join(line + "\n" for line in lines))
        os.replace(temporary, path)
    return failed, statuses


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A plain table on stdout."""
    for line in _aligned(header, [list(row) for row in rows]):
        print(line)


def evaluation(result: dict[str, Any], format: str) -> None:
    """The result of `resynth evaluate`."""
    if format == "json":
        print(json.dumps(result, indent=2))
        return
    rows = evaluation_rows(result)
    if format == "csv":
        print("\n".join(evaluation_csv(rows)))
        return
    used = [name for name in rows[0] if any(row[name] is not None for row in rows)]
    table(
        used, [["" if (v := row[c]) is None else f"{v:.3f}" if isinstance(v, float) else printable(str(v)) for c in used] for row in rows]
    )
    unknown = "" if result["auroc_unknown"] is None else f"; unknown generators: AUROC {result['auroc_unknown']:.3f}"
    print(f"{result['n']} probes, chance {result['chance']:.3f}{unknown}; {result['seconds_per_probe']:.2f} s a probe")
    if race := result.get("race"):
        print(_raced(race))
    if result.get("unjudged"):
        print(f"{result['unjudged']} probes were not judged: a candidate has no picture of their prompt beside themselves")
    for skipped in result.get("skipped", ()):
        print(f"skipped: {skipped}")


def _raced(race: dict[str, Any]) -> str:
    """What racing has saved and changed, in words."""
    agreement = "none was attributed" if race["agreement"] is None else f"{race['differ']} of {race['attributed']} attributed differ"
    low, high = (100 * end for end in race["difference_ci95"])
    return (
        f"racing drew {race['pictures']:.1f} of {race['of_pictures']} pictures a probe, {race['denoiser_rows']:.0f} of "
        f"{race['of_denoiser_rows']} denoiser rows; first candidate: {agreement}; accuracy {100 * race['difference']:+.1f} points [{low:+.1f}, {high:+.1f}]"
    )


def evaluation_csv(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Rows of `evaluation_rows` as lines of CSV."""
    return [_csv_line(list(rows[0])), *(_csv_line(["" if value is None else value for value in row.values()]) for row in rows)]


def evaluation_rows(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The result's conditions, one a row, with the same columns; None where a condition has no such figure."""

    def row(condition: str, found: dict[str, Any]) -> dict[str, Any]:
        low, high = found.get("ci95") or (None, None)
        return {
            "condition": condition,
            "references": found.get("references", (result.get("setting") or result).get("references")),
            "gallery": found.get("gallery_per_candidate", result["gallery_per_candidate"]),
            "balanced": found.get("balanced"),
            "low": low,
            "high": high,
        } | {name: found.get(name) for name in ("top3", "nll", "ece", "gain_per_picture", "auroc")}

    if "conditions" in result:
        return [row(f"captions: {name}", found) for name, found in result["conditions"].items()]
    rows = [row("one-shot, no gallery", result["no_gallery"])] if "no_gallery" in result else []
    rows += [row(result["recipe"], {**result, **result["accuracy"], "auroc": result["auroc_unknown"]})]
    for found in result.get("robustness", ()):
        rows.append(row(found["degradation"], found))
        if "left_out" in found:
            rows.append(row(f"{found['degradation']}, family left out of the fit", found["left_out"]))
    rows += [row(found["policy"], found) for found in result.get("curve", ())]
    rows += [row(f"unknown: {found['unknown']}", found) for found in (result.get("open") or {}).get("by_generator", ())]
    return rows + [row(f"no candidate: {found['unknown']}", found) for found in result.get("outside", ())]


def _json(records: Iterator[Record]) -> Iterator[str]:
    yield json.dumps(document(list(records)), indent=2)


def _jsonl(records: Iterator[Record]) -> Iterator[str]:
    for record in records:
        yield json.dumps(record)


def _csv(records: Iterator[Record]) -> Iterator[str]:
    yield _csv_line(_COLUMNS)
    for record in records:
        verdict = record["verdict"]
        error = (record["error"] or {}).get("message")
        given = {
            "path": record["input"]["path"],
            "caption": record["evidence"]["caption"],
            "warnings": "; ".join(record["warnings"]),
            "error": error,
        }
        yield _csv_line(["" if (v := given.get(c, verdict.get(c))) is None else v for c in _COLUMNS])


def _csv_line(cells: Sequence[object]) -> str:
    """One line; a text that a spreadsheet would take for a formula is quoted with an apostrophe."""
    buffer = io.StringIO()
    safe = ["'" + cell if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell for cell in cells]
    csv.writer(buffer, lineterminator="").writerow(safe)
    return buffer.getvalue()


def _table(records: Iterator[Record]) -> Iterator[str]:
    rows = []
    for record in records:
        verdict, error = record["verdict"], record["error"]
        if error:
            rows.append([record["input"]["path"], "error", error["message"]])
        else:
            odds = ", ".join(f"{c['name']} {c['probability']:.2f}" for c in record["candidates"])
            rows.append([record["input"]["path"], verdict["words"], odds])
    yield from _aligned(["picture", "verdict", "probabilities"], rows)


def _aligned(header: Sequence[str], rows: list[list[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in [list(header), ["─" * width for width in widths], *rows]:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


_RENDER = {"table": _table, "json": _json, "jsonl": _jsonl, "csv": _csv}
