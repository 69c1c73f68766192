"""The nouns of an attribution, frozen and without logic, and the names of array types."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Booleans = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


class Array(Protocol):
    """An array on some device: a NumPy array, a torch tensor or a `CudaArray`.

    The runtime asks no more of it than this: its shape, its length, a reshaped view, and views by integers and slices.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""

    @property
    def dtype(self) -> Any:
        """Type of an element, in the words of the array's own library."""

    def __len__(self) -> int:
        """Length of the first axis."""

    def __iter__(self) -> Iterator[Any]:
        """Views along the first axis."""

    def __getitem__(self, index: Any, /) -> Any:
        """A view, by integers and slices."""

    def reshape(self, shape: Any, /) -> Any:
        """A view of as many elements."""


A = TypeVar("A", bound=Array)
"""The array type of one device."""

Pixels = npt.NDArray[np.uint8]
Status = Literal["attributed", "inconclusive", "unknown"]
Part = Literal["captioner", "extractor"]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Picture:
    """One decoded picture.

    pixels: (height, width, 3) uint8, sRGB, upright, read-only. width, height: of `pixels`, in px.
    sha256: of the file's bytes, in hexadecimal. format: one of FORMATS. exif_orientation: 1 … 8, 1 if absent.
    warnings: every change of the picture that limits how far its pixels can be trusted; empty if there was none.
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
    """A description of a probe, which candidates resynthesise."""

    text: str
    by: str
    """Its source: the captioner's name, "metadata" for the prompt recorded in the file, "user"."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class PreparedProbe:
    """A probe with its caption and features."""

    picture: Picture
    caption: Caption
    features: npt.NDArray[np.float32]
    """(d,) raw features, as a gallery stores them"""
    point: npt.NDArray[np.float64]
    """(d,) whitened features"""
    perturbed: Sequence[npt.NDArray[np.float64]]
    """Whitened features of its mildly perturbed copies, (d,) each."""
    signatures: Bytes
    """(n, `images.copies.SIGNATURE_BYTES`), by which near copies are found"""
    perturbed_features: npt.NDArray[np.float32]
    """(n, d) raw features of the perturbed copies"""
    foreign_to: Sequence[Part] = ()
    """The parts that were fitted on pictures unlike this one."""


@dataclass(frozen=True, slots=True)
class Request:
    """One picture to generate: the candidate, the prompt, the seed of the noise, and the guidance."""

    candidate: str
    prompt: str
    seed: int
    guidance: float = 1.0
    """Guidance scale as a multiple of the candidate's own; 0: without guidance. 1 for a candidate whose guidance cannot be changed."""


@dataclass(frozen=True, slots=True)
class Resynthesis:
    """A picture that a candidate generated from the probe's caption; pixels (H, W, 3) uint8."""

    seed: int
    pixels: Pixels
    guidance: float = 1.0
    """As `Request.guidance`."""


@dataclass(frozen=True, slots=True)
class KnownCopy:
    """A picture given for a generator of which the probe is a copy. It says where the probe was seen, not what its pixels show."""

    generator: str
    """The generator, or other source, that the picture was given for."""
    file: str
    """The given picture: its path, or the gallery's entry."""
    sha256: str
    """Of the given file."""
    kind: Literal["same file", "near copy"]
    distance: int
    """Bits of 256 in which the perceptual hashes differ (`images.copies`); 0 of the same file."""


@dataclass(frozen=True, slots=True)
class CandidateEvidence:
    """How well one candidate explains the probe."""

    name: str
    family: str
    bundle: str
    """SHA-256 of the candidate's manifest; a candidate without one has the hash of its pictures or of its settings."""
    score: float
    """Log-likelihood, up to a constant shared by all candidates of the probe; higher is closer."""
    probability: float
    """Probability that this candidate is the source, if one of the candidates is, 0 … 1."""
    resyntheses: tuple[Resynthesis, ...]
    """Pictures that it generated from the probe's caption."""
    exemplars: tuple[Pixels, ...] = ()
    """Of a candidate that cannot generate: its own pictures that represent it, (H, W, 3) uint8 each."""
    best_guidance: str = ""
    """weaker or stronger: the probe is closer to its resyntheses of weaker, or of stronger, guidance than its own; "" where neither is."""
    pictures: int = 0
    """Number of its own pictures that it is judged by, where these are more than are shown."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer for one probe, with all that it rests on.

    Example:
        >>> [verdict] = attributor(["picture.png"])  # doctest: +SKIP
        >>> verdict.status, verdict.label, verdict.probability  # doctest: +SKIP
        ('attributed', 'zoo-flux', 0.97)
    """

    status: Status
    """attributed: the first candidate is named. inconclusive: none may be named, as `reason` says. unknown: the probe is less like
    the candidates' pictures than these are like each other."""
    reason: str
    """Why no candidate is named, in one sentence; "" if one is."""
    label: str | None
    """Name of the first candidate; None unless `status` is "attributed"."""
    family: str | None
    """Family of that candidate; None unless `status` is "attributed"."""
    probability: float
    """Probability of the first candidate, if one of the candidates is the source, 0 … 1."""
    margin: float
    """The first probability minus the second, 0 … 1."""
    consistency: float
    """How much the probe looks like a picture of one of the candidates (`scoring.score.consistency`); low for the pictures of others."""
    credible_set: tuple[str, ...]
    """The fewest candidates that together hold 90 % of the probability."""
    candidates: tuple[CandidateEvidence, ...]
    """Evidence per candidate, from the most to the least probable."""
    caption: str
    captioner: str
    """Source of the caption, as `Caption.by`."""
    perturbations: int
    """Number of mildly perturbed copies of the probe that were judged too."""
    flips: int
    """Number of these copies for which another candidate comes first."""
    probe: Picture
    timing_ms: Mapping[str, float]
    """Elapsed milliseconds per stage, and their "total"; probes of one call get equal shares. "weights_wait": the part of "generate" that
    waited for weights to load."""
    provenance: Mapping[str, object]
    """Versions, hashes and settings that the answer depends on."""
    warnings: tuple[str, ...] = field(default=())
    """Every reason, in plain English, to trust the answer less."""
    known_copies: tuple[KnownCopy, ...] = ()
    """Pictures of the candidates' folders and of the gallery of which the probe is a copy: the same file first, then the nearest.
    They change neither `status` nor `label`, and are never compared with the probe."""
