"""Records as plain text: aligned tables for people; JSON, JSON lines and CSV for programs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence

from .record import Record, copies_sentence, document

_CSV_COLUMNS = (
    "path",
    "status",
    "label",
    "family",
    "known_copies",
    "probability",
    "margin",
    "consistency",
    "reason",
    "caption",
    "warnings",
    "error",
)


def table_lines(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Lines of a table whose columns are aligned."""
    rows = [list(row) for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in [list(header), ["─" * width for width in widths], *rows]:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def csv_line(cells: Iterable[object]) -> str:
    """One line of CSV; None is an empty cell. A text that a spreadsheet would take for a formula gets an apostrophe before it."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="").writerow(_csv_cell(cell) for cell in cells)
    return buffer.getvalue()


def _csv_cell(cell: object) -> object:
    if cell is None:
        return ""
    return "'" + cell if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r")) else cell


def _json(records: Iterable[Record]) -> Iterator[str]:
    yield json.dumps(document(list(records)), indent=2)


def _json_lines(records: Iterable[Record]) -> Iterator[str]:
    for record in records:
        yield json.dumps(record)


def _csv(records: Iterable[Record]) -> Iterator[str]:
    yield csv_line(_CSV_COLUMNS)
    for record in records:
        fields = record["verdict"] | {
            "path": record["input"]["path"],
            "known_copies": copies_sentence(record),
            "caption": record["evidence"]["caption"],
            "warnings": "; ".join(record["warnings"]),
            "error": (record["error"] or {}).get("message"),
        }
        yield csv_line(fields[column] for column in _CSV_COLUMNS)


def _table(records: Iterable[Record]) -> Iterator[str]:
    rows = []
    for record in records:
        verdict, error = record["verdict"], record["error"]
        if error:
            rows.append([record["input"]["path"], "error", error["message"], ""])
        else:
            probabilities = ", ".join(f"{c['name']} {c['probability']:.2f}" for c in record["candidates"])
            seen = copies_sentence(record)
            summary = f"{seen}. By its pixels: {verdict['summary']}" if seen else verdict["summary"]
            rows.append([record["input"]["path"], summary, probabilities, verdict["reason"]])
    yield from table_lines(["picture", "verdict", "probabilities", "reason"], rows)


FORMATS: dict[str, Callable[[Iterable[Record]], Iterator[str]]] = {"table": _table, "json": _json, "jsonl": _json_lines, "csv": _csv}
"""Each format as a function from records to lines; JSON lines and CSV yield each line as soon as its record arrives."""
