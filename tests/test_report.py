"""The evidence page shows the whole record and every picture, loads nothing, and treats all text as text."""

from __future__ import annotations

import base64
import copy
import io
import os
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sample_records import NAMES, answered, failed, pictures, sha256

from resynth_fast.errors import ConfigError
from resynth_fast.report import page as report

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>{{ 7 * 7 }}\u202egnp.exe\u2066\0\x1b[2J"
INVISIBLE = re.compile("[\0-\x08\x0b-\x1f\x7f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
LOADS = {"src", "href", "srcset", "action", "data", "poster", "background", "formaction", "xlink:href"}


NOTHING: dict[str, Any] = {"probe": None, "resyntheses": {}}


class Page(HTMLParser):
    """The tags, texts, loads and pictures of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.images: list[dict[str, str]] = []
        self._texts: list[str] = []
        self.feed(html)
        self.text = " ".join("".join(self._texts).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("span", "b"):
            self._texts.append(" ")
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag == "img":
            self.images.append({name: value or "" for name, value in attrs})

    def handle_data(self, data: str) -> None:
        if self.tags[-1:] != ["style"]:
            self._texts.append(data)

    def pixels(self) -> list[np.ndarray]:
        return [np.asarray(opened(image["src"])) for image in self.images]


def opened(uri: str) -> Image.Image:
    kind, _, content = uri.partition(",")
    assert kind == "data:image/png;base64"
    return Image.open(io.BytesIO(base64.b64decode(content, validate=True)))


def page(*records: dict[str, Any]) -> Page:
    return Page(report.render(records, [NOTHING if r["error"] else pictures(r) for r in records]))


@pytest.mark.parametrize(
    ("status", "words", "said"),
    [
        ("attributed", "Most consistent with zoo-flux", ["Most consistent with zoo-flux", "Strong support for zoo-flux"]),
        (
            "inconclusive",
            "Inconclusive: zoo-sd or zoo-sd-twin",
            ["Inconclusive: zoo-sd or zoo-sd-twin", "The first two candidates explain the picture equally well."],
        ),
        (
            "unknown",
            "None of the candidates: even zoo-flux is less consistent with it than its own pictures are",
            ["None of the candidates Even zoo-flux is less consistent with it than its own pictures are."],
        ),
    ],
)
def test_a_verdict_is_stated_in_a_sentence(status: str, words: str, said: list[str]) -> None:
    text = page(answered(status, (0.96, 0.03, 0.01), words)).text
    assert all(sentence in text for sentence in said)


def test_the_numbers_and_their_provenance_are_shown() -> None:
    shown = page(answered())
    for words in (
        "90.0 %",
        "84.0 Wide lead",
        "0.71",
        "4 of 5",
        "score −4.000",
        "a drawn face",
        "seed 11",
        "seed 12",
        "only the first frame",
        "0.1.0",
        "zoo-texture",
        "200 zoo probes",
        sha256("zoo-sd")[:12] + "…",
        "1.84 s",
        "2.1 ms",
        "a camera",
        "PNG, 64 × 48 px",
    ):
        assert words in shown.text, words


def test_the_caution_names_the_candidates_and_their_relations() -> None:
    text = page(answered()).text
    assert "Attribution is evidence, never proof: fingerprints can be removed and forged." in text
    assert "The candidates were zoo-flux, zoo-sd and zoo-sd-twin; another generator cannot be named." in text
    assert "zoo-sd and zoo-sd-twin belong to one family (sd)" in text
    assert "was made by" not in text


def test_certainty_is_never_claimed() -> None:
    text = page(answered(probabilities=(1.0, 0.0, 0.0))).text
    assert "> 99.9 %" in text
    assert "< 0.1 %" in text
    assert "100.0 %" not in text


def test_candidates_stand_sorted_by_probability() -> None:
    record = answered()
    record["candidates"].reverse()
    alts = [image["alt"] for image in page(record).images if image["alt"].startswith("Resynthesis")]
    assert [alt.rpartition(" ")[2] for alt in alts] == ["zoo-flux"] * 2 + ["zoo-sd"] * 2 + ["zoo-sd-twin"] * 2


def test_every_picture_is_in_the_page_pixel_by_pixel() -> None:
    record = answered()
    images = pictures(record)
    shown = Page(report.render([record], [images])).pixels()
    wanted = [images["probe"], *(p for name, _ in NAMES for p in images["resyntheses"][name])]
    assert len(shown) == len(wanted)
    assert all(np.array_equal(a, b) for a, b in zip(shown, wanted, strict=True))


def test_small_pictures_are_enlarged_unsmoothed_and_large_ones_reduced() -> None:
    record = answered()
    probe, *made = Page(report.render([record], [pictures(record, (900, 1500))])).images
    assert (probe["width"], probe["height"]) == ("512", "307")
    assert "pixels" not in probe["class"]
    assert all("pixels" in image["class"] for image in made)


def test_pictures_carry_no_metadata() -> None:
    assert all(opened(image["src"]).info == {} for image in page(answered()).images)


def test_an_error_of_one_picture_is_shown_and_the_others_are_complete() -> None:
    shown = page(answered(), failed())
    assert "Could not be examined" in shown.text
    assert failed()["error"]["message"] in shown.text
    assert "Most consistent with zoo-flux" in shown.text


def test_several_probes_have_a_summary_with_links() -> None:
    shown = page(answered(), failed(), answered("inconclusive", words="Inconclusive: zoo-sd or zoo-sd-twin"))
    links = [value for name, value in shown.attributes if name == "href" and value.startswith("#probe")]
    anchors = [value for name, value in shown.attributes if name == "id" and re.fullmatch(r"probe-\d+", value)]
    assert links == ["#probe-1", "#probe-2", "#probe-3"]
    assert anchors == ["probe-1", "probe-2", "probe-3"]
    assert "table" not in page(answered()).tags


def test_a_page_without_probes_states_that() -> None:
    assert "No pictures were examined" in page().text


def test_records_and_pictures_must_match() -> None:
    with pytest.raises(ValueError, match="shorter"):
        report.render([answered()], [])


def with_text_everywhere(text: str) -> dict[str, Any]:
    """A record whose every string is `text`, but for its status."""

    def replaced(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: replaced(entry) for key, entry in value.items()}
        if isinstance(value, list):
            return [replaced(entry) for entry in value]
        return text if isinstance(value, str) else value

    record: dict[str, Any] = replaced(copy.deepcopy(answered()))
    record["verdict"]["status"] = "attributed"
    record["metadata"]["parameters"] = {text: text}
    record["provenance"][text] = text
    return record


def test_hostile_text_stays_text() -> None:
    record = with_text_everywhere(HOSTILE)
    error = failed() | {"input": record["input"], "error": {"kind": HOSTILE, "message": HOSTILE}}
    made = {HOSTILE: [np.zeros((8, 8, 3), np.uint8)]}
    html = report.render([record, error], [{"probe": np.zeros((8, 8, 3), np.uint8), "resyntheses": made}, NOTHING], title=HOSTILE)
    shown = Page(html)
    assert "script" not in shown.tags
    assert not [name for name, _ in shown.attributes if name.startswith("on")]
    assert not INVISIBLE.search(html)
    assert "{{ 7 * 7 }}" in shown.text
    assert "\\u202egnp.exe" in shown.text


def test_very_long_texts_and_lists_are_cut() -> None:
    record = with_text_everywhere("x" * 1_000_000)
    record["metadata"]["parameters"] = {f"{i}": "y" * 1_000_000 for i in range(1000)}
    record["warnings"] = ["z" * 1_000_000] * 1000
    record["evidence"]["seeds"] = list(range(100_000))
    assert len(report.render([record], [NOTHING])) < 500_000


def test_lone_surrogates_of_a_file_name_can_be_written(tmp_path: Path) -> None:
    record = answered()
    record["input"]["path"] = "caf\udce9.png"
    report.write(tmp_path / "r.html", [record], [NOTHING])
    assert "caf\\udce9.png" in (tmp_path / "r.html").read_text()


def test_nothing_is_loaded_and_nothing_runs() -> None:
    record = answered()
    record["metadata"]["parameters"]["url"] = "https://example.org/x.png"
    html = report.render([record, failed()], [pictures(record), NOTHING])
    shown = Page(html)
    loads = [value for name, value in shown.attributes if name in LOADS]
    assert loads
    assert all(value.startswith(("data:image/png;base64,", "#")) for value in loads)
    assert not {"script", "link", "iframe", "object", "embed", "form", "base"} & set(shown.tags)
    assert not re.search(r"url\(|@import", html)
    assert any("default-src 'none'" in value for name, value in shown.attributes if name == "content")


def test_the_same_records_give_the_same_page() -> None:
    record = answered()
    assert report.render([record], [pictures(record)]) == report.render([record], [pictures(record)])


def test_write_replaces_the_page_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    report.write(path, [answered()], [pictures(answered())])
    assert path.read_text() == report.render([answered()], [pictures(answered())])
    assert os.listdir(tmp_path) == ["report.html"]


@pytest.mark.parametrize("fault", ["fsync", "replace"])
def test_a_failed_write_keeps_the_old_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, fault, full)
    with pytest.raises(ConfigError, match="No space left on device"):
        report.write(path, [answered()], [NOTHING])
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["report.html"]


def test_a_link_is_followed_and_only_a_regular_file_replaced(tmp_path: Path) -> None:
    (tmp_path / "link.html").symlink_to(tmp_path / "real.html")
    report.write(tmp_path / "link.html", [], [])
    assert (tmp_path / "link.html").is_symlink()
    assert (tmp_path / "real.html").is_file()
    with pytest.raises(ConfigError, match="not a regular file"):
        report.write(tmp_path, [], [])
    with pytest.raises(ConfigError, match="No such file"):
        report.write(tmp_path / "missing" / "r.html", [], [])
