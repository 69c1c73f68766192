"""The plots of an evaluation, as SVG: accuracy by references, robustness, reliability, confusion."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import files
from ..errors import ConfigError
from ..images import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, SOFT, LINE = "#1c2126", "#5a636c", "#e2dfd7"
SERIES = ("#1d5f8a", "#b3541e", "#3d7a4a", "#7a4a8c", "#8a7a1d", "#4a5560")
MARKERS = ("o", "s", "^", "D", "v", "P")
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "resynth",
    "font.size": 9,
    "font.family": ["sans-serif"],
    "text.parse_math": False,
    "text.color": INK,
    "axes.labelcolor": SOFT,
    "axes.edgecolor": LINE,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "axes.linewidth": 1.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
}


def draw(result: dict[str, Any]) -> dict[str, str]:
    """Name → SVG of every plot that the result has data for; ConfigError if matplotlib is not installed."""
    # The cache of its fonts belongs to ours; it reads the variable when it is imported.
    os.environ.setdefault("MPLCONFIGDIR", str(files.user_cache() / "matplotlib"))
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError(f"plots need matplotlib, which cannot be imported ({error}); pip install 'resynth-fast[plots]'") from error

    plots = {}
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **STYLE}):
        for name, (select, plot, size) in _PLOTS.items():
            if data := select(result):
                figure = Figure(figsize=size(data), layout="constrained")
                plot(figure.subplots(), data, result)
                buffer = io.StringIO()
                figure.savefig(buffer, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
                plots[name] = buffer.getvalue()
    return plots


def inline(name: str, svg: str, title: str) -> str:
    """An SVG file as part of a page: without prologue and fixed size, with ids of its own and the page's colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, count=1, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1), count=1)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(url\(|href=")#', rf"\1#{name}-", svg)
    variables = {INK: "ink", SOFT: "soft", LINE: "line"} | {colour: f"series-{i}" for i, colour in enumerate(SERIES)}
    for colour, variable in variables.items():
        svg = svg.replace(colour, f"var(--{variable})")
    return svg.replace("<svg", f'<svg role="img" aria-label="{title}"', 1)


def _curve(axes: Axes, rows: list[dict[str, Any]], result: dict[str, Any]) -> None:
    policies = list(dict.fromkeys(row["policy"] for row in rows))
    counts = sorted({row["references"] for row in rows})
    for i, policy in enumerate(policies):
        of_policy = [row for row in rows if row["policy"] == policy]
        x = [counts.index(row["references"]) for row in of_policy]
        colour = SERIES[i % len(SERIES)]
        low, high = ([row["ci95"][side] for row in of_policy] for side in (0, 1))
        axes.fill_between(x, low, high, color=colour, alpha=0.12, linewidth=0)
        axes.plot(
            x,
            [row["balanced"] for row in of_policy],
            color=colour,
            marker=MARKERS[i % len(MARKERS)],
            markersize=4.5,
            linewidth=1.6,
            label=policy,
        )
    axes.axhline(result["chance"], color=SOFT, linewidth=1, linestyle=(0, (4, 3)))
    axes.annotate("chance", (len(counts) - 1, result["chance"]), (0, 3), textcoords="offset points", ha="right", color=SOFT)
    axes.set_xticks(range(len(counts)), [str(count) for count in counts])
    axes.set(xlabel="references per candidate", ylabel="balanced accuracy", ylim=(0, 1.03))
    axes.figure.legend(loc="outside lower center", ncols=2)


def _robustness(axes: Axes, rows: list[dict[str, Any]], result: dict[str, Any]) -> None:
    y = np.arange(len(rows))
    for i, (label, shift) in enumerate((("all nuisance constants", 0.0), ("fitted without the degradation’s family", 0.28))):
        figures = {k: row if i == 0 else row["left_out"] for k, row in enumerate(rows) if i == 0 or row.get("left_out")}
        if not figures:
            continue
        values = np.array([each["balanced"] for each in figures.values()])
        low, high = (np.array([each["ci95"][side] for each in figures.values()]) for side in (0, 1))
        spread = np.abs(np.stack([values - low, high - values]))
        axes.errorbar(
            values,
            y[list(figures)] + shift,
            xerr=spread,
            fmt=MARKERS[i],
            color=SERIES[i],
            markersize=5,
            linewidth=1.3,
            markerfacecolor=SERIES[i] if i == 0 else "none",
            label=label,
        )
    clean = result["accuracy"]["balanced"]
    axes.axvline(clean, color=SOFT, linewidth=1, linestyle=(0, (4, 3)))
    axes.annotate("clean", (clean, -0.7), (-3, 0), textcoords="offset points", ha="right", va="center", color=SOFT)
    axes.set_yticks(y, [_plain(row["degradation"]) for row in rows])
    axes.set(xlabel="balanced accuracy", ylim=(len(rows) - 0.4, -1.1), xlim=(0, 1.03))
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.figure.legend(loc="outside lower center", ncols=2)


def _reliability(axes: Axes, rows: list[dict[str, Any]], result: dict[str, Any]) -> None:
    axes.plot([0, 1], [0, 1], color=SOFT, linewidth=1, linestyle=(0, (4, 3)))
    confidence, accuracy = [row["confidence"] for row in rows], [row["accuracy"] for row in rows]
    axes.plot(confidence, accuracy, color=SERIES[0], marker="o", markersize=5, linewidth=1.4)
    axes.set(
        xlabel="stated probability of the first candidate",
        ylabel="share of correct attributions",
        xlim=(0, 1.03),
        ylim=(0, 1.03),
        aspect="equal",
    )


def _confusion(axes: Axes, table: list[list[int]], result: dict[str, Any]) -> None:
    from matplotlib.patches import Rectangle

    names = [_plain(name) for name in names_of(result)]
    few = len(names) <= 20
    for t, row in enumerate(table):
        for p, count in enumerate(row):
            if not count:
                continue
            share = count / sum(row)
            axes.add_patch(Rectangle((p - 0.5, t - 0.5), 1, 1, facecolor=SERIES[0], edgecolor="none", alpha=0.08 + 0.6 * share))
            if few:
                axes.text(p, t, f"{100 * share:.0f}", ha="center", va="center", fontsize=8)
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="attributed to", ylabel="made by", xlim=(-0.5, len(names) - 0.5), ylim=(len(names) - 0.5, -0.5), aspect="equal")
    axes.tick_params(length=0, labelcolor=INK, labelsize=9 if few else 6)
    axes.grid(False)
    axes.spines[:].set_visible(True)


def names_of(result: dict[str, Any]) -> list[str]:
    """Names of the candidates, in the order of the confusion matrix."""
    names: list[str] = result.get("generators") or result["candidates"]
    return names


def confusion_of(result: dict[str, Any]) -> list[list[int]]:
    """Number of judgements by true generator (rows) and first candidate (columns)."""
    table: list[list[int]] = result["confusion"] if "confusion" in result else result["conditions"]["tagger"]["confusion"]
    return table


def _plain(name: str) -> str:
    return printable(name, 30)


_Size = Callable[[Any], tuple[float, float]]
_PLOTS: dict[str, tuple[Callable[[dict[str, Any]], Any], Callable[[Axes, Any, dict[str, Any]], None], _Size]] = {
    "curve": (lambda result: result.get("curve"), _curve, lambda _: (6.0, 4.0)),
    "robustness": (lambda result: result.get("robustness"), _robustness, lambda rows: (6.0, 1.3 + 0.34 * len(rows))),
    "reliability": (lambda result: result.get("reliability"), _reliability, lambda _: (3.8, 3.6)),
    "confusion": (confusion_of, _confusion, lambda table: (min(2.2 + 0.34 * len(table), 9), min(2.0 + 0.34 * len(table), 9))),
}
