"""The nouns of an attribution: frozen, without logic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]
Status = Literal["attributed", "inconclusive", "unknown"]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Picture:
    """One decoded picture.

    pixels: (height, width, 3) uint8, sRGB, upright, read-only. width, height: of `pixels`, in px.
    sha256: of the file's bytes, in hexadecimal. format: one of FORMATS. exif_orientation: 1 … 8, 1 where absent.
    warnings: what was done to the picture that changes how far its pixels can be trusted; empty if nothing.
    info: text that the file carries (PNG text, comments), **untrusted**: capped and free of control characters,
    but never escaped for HTML, CSV or a terminal. data: the file's bytes; empty if there was no file.
    """

    pixels: Pixels
    sha256: str
    format: str
    width: int
    height: int
    exif_orientation: int
    warnings: tuple[str, ...]
    info: dict[str, str]
    data: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Caption:
    """What a probe shows, in words."""

    text: str
    by: str
    """The captioner's name, "metadata" for the prompt recorded in the file, "user"."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """One picture to be made: by which candidate, from which prompt, from which noise."""

    candidate: str
    prompt: str
    seed: int


@dataclass(frozen=True, slots=True)
class Resynthesis:
    """A picture that a candidate made from the probe's caption; pixels (H, W, 3) uint8."""

    seed: int
    pixels: Pixels


@dataclass(frozen=True, slots=True)
class CandidateEvidence:
    """How well one candidate explains the probe."""

    name: str
    family: str
    bundle: str
    """SHA-256 of the candidate's manifest; of its pictures or of its description where it has none."""
    score: float
    """Log-likelihood, up to a constant shared by all candidates of the probe; higher is closer."""
    probability: float
    resyntheses: tuple[Resynthesis, ...]
    exemplars: tuple[Pixels, ...] = ()
    """Of a candidate that cannot be run: those of its own pictures that stand for it."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer for one probe, with all that it rests on."""

    status: Status
    label: str | None
    """Name of the candidate, None unless `status` is "attributed"."""
    family: str | None
    probability: float
    """Of the first candidate, if one of them made the picture."""
    margin: float
    """First probability minus the second."""
    consistency: float
    """How much the probe looks like a picture of one of the candidates (`recipe.consistency`); low for pictures that none makes."""
    credible_set: tuple[str, ...]
    """The fewest candidates that hold 90 % of the probability."""
    candidates: tuple[CandidateEvidence, ...]
    """From the most to the least probable."""
    caption: str
    captioner: str
    """Whose words the caption is, as in `Caption`."""
    perturbations: int
    flips: int
    """Under how many of the mild perturbations of the probe another candidate comes first."""
    probe: Picture
    timing_ms: Mapping[str, float]
    provenance: Mapping[str, object]
    warnings: tuple[str, ...] = field(default=())
