"""The evidence page: records and their pictures as one HTML file that holds everything, without scripts or remote content."""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from PIL import Image

from .. import files
from ..images import printable
from ..types import Pixels
from .record import copies_sentence

TITLE = "Source attribution"
MAX_SIDE_PX = 512
THUMBNAIL_PX = 64
ENLARGED_UP_TO_PX = 128
"""Pictures up to this side are enlarged pixel by pixel, without smoothing."""
MAX_TEXT = 2000
MAX_ITEMS = 40
"""Maximum number of entries shown of a list whose length a picture file decides."""

_SHA256 = re.compile(r"[0-9a-f]{64}")
_GENERATION = {
    "generator": "Metadata format",
    "software": "Software",
    "model": "Model",
    "prompt": "Prompt",
    "negative_prompt": "Negative prompt",
    "seed": "Seed",
    "steps": "Steps",
    "guidance": "Guidance",
}
_CREDENTIALS = {"issuer": "Issuer", "common_name": "Common name", "generator": "Stated generator"}
_HASH = {"matches": "as signed", "differs": "changed since they were signed", None: "not compared with the signed ones"}
_STAGES = ("read", "caption", "generate", "features", "score", "total")


def render(records: Sequence[Mapping[str, Any]], images: Sequence[Mapping[str, Any]], title: str = TITLE) -> str:
    """The page for `records` (schemas/record.schema.json).

    `images[i]` belongs to `records[i]`: {"probe": (H, W, 3) uint8 or None, "resyntheses": {name: [(h, w, 3) uint8, …]}},
    and "exemplars", in the form of "resyntheses": pictures that were not generated for this probe.
    """
    probes = [_probe(number, *pair) for number, pair in enumerate(zip(records, images, strict=True), 1)]
    return environment().get_template("page.html.j2").render(title=title, probes=probes)


def write(path: str | Path, records: Sequence[Mapping[str, Any]], images: Sequence[Mapping[str, Any]], title: str = TITLE) -> None:
    """Replace `path` by the page for `records`, all or nothing. ConfigError if it cannot be written."""
    files.write_output(f"report {printable(str(path))!r}", Path(path), render(records, images, title))


def environment(*folders: Path) -> jinja2.Environment:
    """Templates of `folders` and of this package: escaped, strict, with the filters that format numbers on every page."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([*folders, Path(__file__).parent]),
        autoescape=True,
        finalize=_shown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(percent=_percent, points=_points, number=_number, ms=_ms, short=_short, joined=_joined)
    return environment


def _shown(value: object) -> object:
    """Every text that a template prints passes here: control and bidirectional characters are removed, long texts are cut."""
    return printable(value, MAX_TEXT) if isinstance(value, str) and not isinstance(value, Markup) else value


def _probe(number: int, record: Mapping[str, Any], images: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of one record as the template uses them."""
    verdict, evidence, pixels = record["verdict"], record["evidence"], images["probe"]
    candidates = sorted(record["candidates"], key=lambda candidate: -candidate["probability"])
    headline, detail = _headline(record)
    families: dict[str, list[str]] = {}
    for candidate in candidates:
        families.setdefault(candidate["family"], []).append(candidate["name"])
    path = record["input"]["path"]
    return {
        "anchor": f"probe-{number}",
        "name": PurePath(path).name or path,
        "record": record,
        "status": verdict["status"] or "error",
        "mark": "copy" if record["known_copies"] else verdict["status"] or "error",
        "headline": headline,
        "detail": detail,
        "first": candidates[0]["name"] if candidates else None,
        "support": _grade(verdict["probability"], ((0.95, "strong"), (0.8, "good"), (0.5, "moderate"), (0, "weak"))),
        "lead": _grade(verdict["margin"], ((0.5, "wide"), (0.2, "clear"), (0, "narrow"))),
        "picture": None if pixels is None else _picture(pixels),
        "thumbnail": None if pixels is None else _picture(pixels, THUMBNAIL_PX),
        "candidates": [
            {
                "guidance": (),
                "best_guidance": None,
                **candidate,
                "relatives": [name for name in families[candidate["family"]] if name != candidate["name"]],
                "in_set": candidate["name"] in verdict["credible_set"],
                "width": round(100 * min(max(_finite(candidate["probability"]), 0), 1), 2),
                "pictures": [_picture(picture) for picture in images["resyntheses"].get(candidate["name"], ())],
                "exemplars": [_picture(picture) for picture in images.get("exemplars", {}).get(candidate["name"], ())],
            }
            for candidate in candidates
        ],
        "families": [(family, names) for family, names in families.items() if len(names) > 1],
        "seeds": evidence["seeds"][:MAX_ITEMS],
        **_metadata(record["metadata"]),
        "parameters": list(record["metadata"]["parameters"].items())[:MAX_ITEMS],
        "warnings": record["warnings"][:MAX_ITEMS],
        "timing": [(stage, record["timing_ms"][stage]) for stage in _STAGES if stage in record["timing_ms"]],
    }


def _metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Generation settings and content credentials in the file, as rows; records of earlier versions have neither."""
    settings = metadata.get("generation") or {"status": "absent"}
    rows = [(label, settings[key]) for key, label in _GENERATION.items() if settings.get(key) is not None]
    signed = metadata.get("c2pa") or {"status": "absent"}
    credentials = [(label, signed[key]) for key, label in _CREDENTIALS.items() if signed.get(key) is not None]
    if signed["status"] == "present":
        credentials.append(("Bytes", _HASH[signed["hash"]]))
        credentials.append(("Failed checks", ", ".join(signed["codes"]) or "nothing"))
    elif signed["status"] == "unreadable":
        credentials.append(("State", "present, but unreadable"))
    return {
        "generation": [("State", "present, but not understood"), *rows] if settings["status"] == "unparsed" else rows,
        "credentials": credentials,
    }


def _headline(record: Mapping[str, Any]) -> tuple[str, str]:
    """What the page says first: where the picture was seen before, else the verdict's sentence.

    Of a long one the part after the colon follows as detail.
    """
    if record["error"]:
        return "Could not be examined", ""
    if seen := copies_sentence(record):
        return seen, f"By its pixels: {record['verdict']['summary']}."
    sentence: str = record["verdict"]["summary"]
    if len(sentence) <= 60:
        return sentence, ""
    head, colon, tail = sentence.partition(": ")
    if tail.startswith("even "):  # a sentence; a list of names keeps its case
        tail = "E" + tail[1:]
    return (head, tail + ".") if colon else (sentence, "")


def _picture(pixels: Pixels, side: int = MAX_SIDE_PX) -> dict[str, Any]:
    """(H, W, 3) uint8 → a PNG as a data URI, at most `side` px on a side, without metadata."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    small = max(image.size) <= ENLARGED_UP_TO_PX
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    uri = Markup("data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode())
    return {"uri": uri, "width": image.width, "height": image.height, "small": small}


def _finite(value: object) -> float:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else 0.0


def _grade(value: float | None, scale: Sequence[tuple[float, str]]) -> str | None:
    return None if value is None else next((word for least, word in scale if value >= least), None)


def _missing(value: object) -> bool:
    return not isinstance(value, int | float) or not math.isfinite(value)


def _percent(value: float | None) -> str:
    """A probability in per cent; it is never rounded to certainty."""
    if value is None or _missing(value):
        return "–"
    if value > 0.999:
        return "> 99.9 %"
    return "< 0.1 %" if value < 0.001 else f"{100 * value:.1f} %"


def _points(value: float | None) -> str:
    return "–" if value is None or _missing(value) else f"{100 * value:.1f}"


def _number(value: float | None, digits: int = 3) -> str:
    return "–" if value is None or _missing(value) else f"{value:.{digits}f}".replace("-", "−")


def _ms(value: float) -> str:
    if _missing(value):
        return "–"
    return f"{value / 1000:.2f} s" if value >= 1000 else f"{value:.1f} ms" if value >= 0.1 else f"{value:.2f} ms"


def _short(value: object) -> str:
    """The text; a hash is cut to its first twelve digits."""
    text = str(value)
    return text[:12] + "…" if _SHA256.fullmatch(text) else text


def _joined(names: Sequence[str], last: str = "and") -> str:
    shown = [printable(name, 100) for name in names]
    return f" {last} ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
