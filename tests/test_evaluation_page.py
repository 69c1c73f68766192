"""The page of an evaluation shows every figure, loads nothing, and treats all text as text."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic_pictures import Page

from resynth_fast.errors import ConfigError, ResynthError
from resynth_fast.evaluation import page, plots

HOSTILE = "<script>alert(1)</script>\"'$x^{2$ {{ 7 * 7 }}\u202egnp"


@pytest.fixture(scope="module")
def result(curve_result: dict[str, Any]):
    """A result with everything that a page can show."""
    found = dict(curve_result)
    found["robustness"] = [
        {"degradation": "jpeg-50", "balanced": 0.7, "ci95": [0.6, 0.8], "gallery_per_candidate": 16, "left_out": found["curve"][0]},
        {"degradation": "webp-50", "balanced": 0.6, "ci95": [0.5, 0.7], "gallery_per_candidate": 16},
    ]
    figures = {"auroc": 0.81, "oscr": 0.77, "ccr_at_fpr5": 0.5, "fpr_at_tpr95": 0.4}
    found["robustness"][1]["degradation"] = "=webp-50"
    found["open"] = {**figures, "by_generator": [{"unknown": HOSTILE, **figures}]}
    found["outside"] = [{"unknown": "camera", "n": 5, **figures}]
    found["generators"] = [HOSTILE, "smooth", "waves"]
    return found


def test_the_page_shows_everything_and_loads_nothing(result: Any, tmp_path: Path) -> None:
    page.write(tmp_path, result)
    html = (tmp_path / "index.html").read_text()
    found = Page(html)
    text = found.text.replace("\xa0", " ")
    accuracy = f"{100 * result['accuracy']['balanced']:.1f} %"
    for shown in (
        accuracy,
        "The gallery held at least 16 pictures",
        "By the number of references",
        "Degraded probes",
        "Confusion of candidates",
        "Unknown generators",
        "camera, never a candidate (5 probes)",
        "Calibration",
        "Conformal sets",
        "After pixel normalisation",
        "Setting and provenance",
        result["provenance"]["extractor_sha256"][:12],
        "2 pictures could not be read",
        "broken.png",
    ):
        assert shown in text, shown
    assert "script" not in found.tags
    assert "<script>alert(1)" in text  # shown as text
    assert "49" not in text.split("Confusion of candidates")[1].split("Unknown")[0]
    assert "\u202e" not in html
    loads = [(name, value) for name, value in found.attributes if name in ("src", "href", "xlink:href", "srcset", "data", "action")]
    assert all(value.startswith("#") for _, value in loads)
    assert "@import" not in html
    ids = [value for name, value in found.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert {value[1:] for _, value in loads} <= set(ids)
    assert json.loads((tmp_path / "result.json").read_text()) == result
    assert "\n'=webp-50," in (tmp_path / "result.csv").read_text()  # no formula for a spreadsheet
    assert {f.name for f in (tmp_path / "plots").iterdir()} == {"curve.svg", "robustness.svg", "reliability.svg", "confusion.svg"}


def test_the_same_result_gives_the_same_plots(result: Any) -> None:
    drawn = plots.draw(result)
    assert drawn == plots.draw(result)
    for name, svg in drawn.items():
        part = plots.inline(name, svg, "title")
        assert part.startswith("<svg role=")
        assert "DOCTYPE" not in part
        assert plots.INK not in part


def test_many_candidates_are_shown_as_a_plot(result: Any, tmp_path: Path) -> None:
    count = 30
    many = {**result, "generators": [f"g{i}" for i in range(count)], "confusion": (np.eye(count, dtype=int) * 3 + 1).tolist()}
    page.write(tmp_path, many)
    html = (tmp_path / "index.html").read_text()
    assert 'class="matrix"' not in html
    assert 'class="plot confusion"' in html


def test_without_matplotlib_everything_else_is_written(
    result: Any, picture_folder: Path, cache_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match=r"pip install 'resynth-fast\[plots\]'; the rest of the result is in"):
        page.write(tmp_path, result)
    assert {f.name for f in tmp_path.iterdir()} == {"result.json", "result.csv", "index.html"}
    assert "matrix" in (tmp_path / "index.html").read_text()


def test_an_unwritable_folder_is_named(result: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ResynthError, match=r"--out .*file cannot be written"):
        page.write(tmp_path / "file", result)
