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
    setting = result.get("setting") or {key: result[key] for key in ("references", "steps", "probe_steps", "seed")}
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
    """The figures beside the headline: label, value, format, note."""
    figures: list[dict[str, Any]] = [
        {"label": "Top-3", "value": result["top3"], "as": "share", "note": "Probes whose generator is among the first three candidates"},
        {
            "label": "Macro F1",
            "value": result["macro_f1"],
            "as": "share",
            "note": "Mean over candidates of the harmonic mean of precision and recall",
        },
    ]
    if (value := result["accuracy"].get("grouped")) is not None:
        figures.append(
            {
                "label": "Families as one",
                "value": value,
                "as": "share",
                "note": "Accuracy if candidates with the same autoencoder count as one",
            }
        )
    if (value := result["auroc_unknown"]) is not None:
        note = "AUROC of the consistency; fit and gallery lack the unknown generator"
        figures.append({"label": "Unknown generators", "value": value, "as": "number", "note": note})
    figures.append(
        {
            "label": "Calibration error",
            "value": result["ece"],
            "as": "number",
            "note": "Expected (ECE), debiased" + _range(result.get("ece_ci95")),
        }
    )
    if conformal := result.get("conformal"):
        figures.append(
            {
                "label": f"{round(100 * conformal['stated'])} % set",
                "value": conformal["size"],
                "as": "count",
                "note": f"Mean number of candidates in it; it contains the true generator in {100 * conformal['coverage']:.1f} % of cases",
            }
        )
    if race := result.get("race"):
        agreement = (
            "no probe was attributed"
            if race["agreement"] is None
            else f"the first candidate is the same in {100 * race['agreement']:.1f} % of attributed probes"
        )
        note = f"Per probe, of {race['of_pictures']}; {agreement}; accuracy {100 * race['difference']:+.1f} points"
        figures.append({"label": "Pictures when racing", "value": race["pictures"], "as": "count", "note": note})
    figures.append(
        {
            "label": "Time per probe",
            "value": result["seconds_per_probe"],
            "as": "seconds",
            "note": "Including resyntheses" if "conditions" in result else "Reading, features and score, without generation",
        }
    )
    return figures


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
