"""The result of an evaluation as files: JSON, CSV, plots, and one self-contained HTML page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from .. import files
from ..errors import ConfigError
from ..report import page
from . import plots, rows

TABLE_AT_MOST = 12
"""Maximum number of candidates whose confusion is shown as a table, which screen readers read; beyond, a plot is shown."""
TITLES = {
    "curve": "Balanced accuracy by the number of references",
    "robustness": "Balanced accuracy of degraded probes",
    "reliability": "Share of correct attributions by stated probability",
    "confusion": "Confusion of the candidates",
}
OF_ZOO = ("references", "steps", "guidance", "probe_steps", "probe_guidance", "seed")
"""Settings that are shown of an evaluation on the zoo."""


def write(folder: Path, result: dict[str, Any]) -> None:
    """`result.json`, `result.csv`, `index.html` and `plots/*.svg` into `folder`.

    ConfigError if they cannot be written. Without matplotlib everything but the plots is written before the ConfigError.
    """

    def put(name: str, text: str) -> None:
        files.write_output(f"--out {folder / name}", folder / name, text)

    missing = None
    try:
        svgs = plots.draw(result)
    except ConfigError as error:
        svgs, missing = {}, error
    with files.write_errors(f"--out {folder}", ConfigError, "name a folder that can be written"):
        (folder / "plots" if svgs else folder).mkdir(parents=True, exist_ok=True)
    put("result.json", json.dumps(result, indent=2) + "\n")
    put("result.csv", "".join(line + "\n" for line in rows.csv_lines(rows.of(result))))
    for name, svg in svgs.items():
        put(f"plots/{name}.svg", svg)
    put("index.html", render(result, svgs))
    if missing is not None:
        raise ConfigError(f"{missing}; the rest of the result is in {folder}") from missing


def render(result: dict[str, Any], svgs: dict[str, str]) -> str:
    """The page with its plots (name → SVG)."""
    template = page.environment(Path(__file__).parent).get_template("result.html.j2")
    return template.render(view(result, svgs))


def view(result: dict[str, Any], svgs: dict[str, str]) -> dict[str, Any]:
    """The fields of the result as the template uses them."""
    names, table = plots.names_of(result), plots.confusion_of(result)
    shares = [[count / max(1, sum(row)) for count in row] for row in table]
    setting = result.get("setting") or {
        key: result[key] for key in ("references", "steps", "guidance", "probe_steps", "probe_guidance", "seed")
    }
    return {
        "result": result,
        "names": names,
        "rows": rows.of(result)[: len(result.get("conditions", ())) or 1 + ("no_gallery" in result)],
        "headline": result["accuracy"]["balanced"],
        "figures": _figures(result),
        "confusion": [] if len(names) > TABLE_AT_MOST and "confusion" in svgs else list(zip(names, shares, strict=True)),
        "mistakes": _mistakes(names, shares),
        "plots": {name: Markup(plots.inline(name, svg, str(escape(TITLES[name])))) for name, svg in svgs.items()},
        "curve": result.get("curve", []),
        "robustness": result.get("robustness", []),
        "unknown": [*(result.get("open") or {}).get("by_generator", ())],
        "outside": result.get("outside", []),
        "reliability": result.get("reliability", []),
        "conformal": result.get("conformal") or None,
        "baseline": result.get("baseline"),
        "differences": result.get("differences", {}),
        "setting": [(key.replace("_", " "), _text(value)) for key, value in setting.items()],
        "provenance": [(key.replace("_", " "), _text(value)) for key, value in result["provenance"].items()],
        "skipped": result.get("skipped", []),
    }


def _figures(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The figures beside the headline: label, value, format, note. A figure without a value is left out."""
    conformal, race = result.get("conformal") or {}, result.get("race") or {}
    stated = f"{round(100 * conformal.get('stated', 0))} % set"
    time = "Including resyntheses" if "conditions" in result else "Reading, features and score, without generation"
    figures = (
        ("Top-3", result["top3"], "share", "Probes whose generator is among the first three candidates"),
        ("Macro F1", result["macro_f1"], "share", "Mean over candidates of the harmonic mean of precision and recall"),
        ("Families as one", result["accuracy"].get("grouped"), "share", "Accuracy if candidates with the same autoencoder count as one"),
        ("Unknown generators", result["auroc_unknown"], "number", _unknown_note(result)),
        ("Calibration error", result["ece"], "number", "Expected (ECE), debiased" + _range(result.get("ece_ci95"))),
        (stated, conformal.get("size"), "count", _conformal_note(conformal)),
        ("Pictures when racing", race.get("pictures"), "count", _race_note(race)),
        ("Time per probe", result["seconds_per_probe"], "seconds", time),
    )
    return [dict(zip(("label", "value", "as", "note"), figure, strict=True)) for figure in figures if figure[1] is not None]


def _unknown_note(result: dict[str, Any]) -> str:
    if result["auroc_unknown"] is None:
        return ""
    rate, oscr = (result[f"{name}_unknown"] for name in ("fpr_at_tpr95", "oscr"))
    return f"AUROC of the consistency; FPR at 95 % TPR {rate:.3f}, OSCR {oscr:.3f}; fit and gallery lack the unknown generator"


def _conformal_note(conformal: dict[str, Any]) -> str:
    if not conformal:
        return ""
    return f"Mean number of candidates in it; it contains the true generator in {100 * conformal['coverage']:.1f} % of cases"


def _race_note(race: dict[str, Any]) -> str:
    if not race:
        return ""
    same = race["agreement"]
    agreement = "no probe was attributed" if same is None else f"the first candidate is the same in {100 * same:.1f} % of attributed probes"
    return f"Per probe, of {race['of_pictures']}; {agreement}; accuracy {100 * race['difference']:+.1f} points"


def _range(interval: list[float] | None) -> str:
    return "; 95 % interval {:.3f}–{:.3f}".format(*interval) if interval else ""


def _mistakes(names: list[str], shares: list[list[float]], most: int = 5) -> list[dict[str, Any]]:
    """The `most` most frequent confusions."""
    wrong = [(share, t, p) for t, row in enumerate(shares) for p, share in enumerate(row) if t != p and share > 0]
    return [{"truth": names[t], "attributed_to": names[p], "share": share} for share, t, p in sorted(wrong, reverse=True)[:most]]


def _text(value: Any) -> Any:
    """A setting as text."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {inner}" for key, inner in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None or value == "" else value
