"""The result of an evaluation as rows of one table, one row per condition, and as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ..images import printable
from ..report.text import csv_line, table_lines
from .metrics import OPEN_SET

Row = dict[str, Any]


def of(result: dict[str, Any]) -> list[Row]:
    """One row per condition of `result`, all with the same columns; None where a condition lacks a figure."""

    def row(condition: str, figures: dict[str, Any]) -> Row:
        low, high = figures.get("ci95") or (None, None)
        return {
            "condition": condition,
            "references": figures.get("references", (result.get("setting") or result).get("references")),
            "gallery": figures.get("gallery_per_candidate", result["gallery_per_candidate"]),
            "balanced": figures.get("balanced"),
            "low": low,
            "high": high,
        } | {name: figures.get(name) for name in ("top3", "nll", "ece", "gain_per_picture", *OPEN_SET)}

    if "conditions" in result:
        rows = [row(f"captions: {name}", figures) for name, figures in result["conditions"].items()]
        return rows + [row(figures["degradation"], figures) for figures in result.get("robustness", ())]
    rows = [row("one-shot, no gallery", result["no_gallery"])] if "no_gallery" in result else []
    rows += [row(result["recipe"], {**result, **result["accuracy"], **{name: result[f"{name}_unknown"] for name in OPEN_SET}})]
    for figures in result.get("robustness", ()):
        rows.append(row(figures["degradation"], figures))
        if "left_out" in figures:
            rows.append(row(f"{figures['degradation']}, family left out of the fit", figures["left_out"]))
    rows += [row(figures["policy"], figures) for figures in result.get("curve", ())]
    rows += [row(f"unknown: {figures['unknown']}", figures) for figures in (result.get("open") or {}).get("by_generator", ())]
    return rows + [row(f"no candidate: {figures['unknown']}", figures) for figures in result.get("outside", ())]


def csv_lines(rows: Sequence[Row]) -> list[str]:
    """`rows` as lines of CSV under a header."""
    return [csv_line(rows[0]), *(csv_line(row.values()) for row in rows)]


def text_lines(result: dict[str, Any]) -> Iterator[str]:
    """`result` as a person reads it: a table of its conditions and a sentence for each remark."""
    rows = of(result)
    columns = [name for name in rows[0] if any(row[name] is not None for row in rows)]
    yield from table_lines(columns, [[_cell(row[name]) for name in columns] for row in rows])
    unknown = ""
    if result["auroc_unknown"] is not None:
        auroc, rate, oscr = (result[f"{name}_unknown"] for name in OPEN_SET)
        unknown = f"; unknown generators: AUROC {auroc:.3f}, FPR at 95 % TPR {rate:.3f}, OSCR {oscr:.3f}"
    yield f"{result['n']} probes, chance {result['chance']:.3f}{unknown}; {result['seconds_per_probe']:.2f} s per probe"
    if race := result.get("race"):
        yield _race_sentence(race)
    if result.get("unjudged"):
        yield f"{result['unjudged']} probes were not judged: a candidate has no other picture of their prompt"
    for skipped in result.get("skipped", ()):
        yield f"skipped: {skipped}"


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, float) else printable(str(value))


def _race_sentence(race: dict[str, Any]) -> str:
    """What racing saved and changed."""
    agreement = "no probe was attributed" if race["agreement"] is None else f"{race['differ']} of {race['attributed']} attributed differ"
    low, high = (100 * end for end in race["difference_ci95"])
    return (
        f"racing generated {race['pictures']:.1f} of {race['of_pictures']} pictures per probe ({race['denoiser_rows']:.0f} of "
        f"{race['of_denoiser_rows']} denoiser rows); first candidate: {agreement}; "
        f"accuracy {100 * race['difference']:+.1f} points [{low:+.1f}, {high:+.1f}]"
    )
