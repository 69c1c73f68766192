"""Finds the very file and near copies among pictures whose source was given, whatever their features say.

A signature is the 256-bit pHash of the luminance, bit for bit that of `imagehash.phash(picture, hash_size=16)`, and the
mean colours of 8 × 8 cells. The hash alone takes drawings of one style for one another, the colours tell these apart.
(Zauner: Implementation and Benchmarking of Perceptual Image Hash Functions, 2010; https://github.com/JohannesBuchner/imagehash.
The library itself needs SciPy and PyWavelets, 150 MB, for a product of two matrices.)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..types import Booleans, Bytes, Doubles, KnownCopy, Pixels

VERSION = 1
"""Version of signatures; those of different versions cannot be compared."""
HASH_SIDE, HASH_SIZE_PX, CELLS = 16, 64, 8
HASH_BYTES = HASH_SIDE**2 // 8
SIGNATURE_BYTES = HASH_BYTES + CELLS * CELLS * 3
MAX_DISTANCE = 16
"""Most bits of 256 in which the hashes of near copies differ. Unrelated pictures differ in about 124."""
MAX_COLOUR_RMS = 4.0
"""Greatest root mean square difference of the cells of near copies, in grey levels."""
MIN_SPREAD = 2.0
"""Least standard deviation of the luminance, in grey levels: a flat picture has no hash, as all of them would be copies of each other."""
MAX_NAMED = 3
"""Most copies that are listed of one source; all of them are left out of its references."""

_COSINES: Doubles = np.cos(np.pi / (2 * HASH_SIZE_PX) * np.arange(HASH_SIDE)[:, None] * (2 * np.arange(HASH_SIZE_PX) + 1))
_MARGIN = 0.02
_EDGES = ((1, 1, 1, 1), (2, 2, 0, 0), (0, 0, 2, 2), (2, 0, 0, 2), (0, 2, 2, 0))
_WINDOWS = [tuple(sign * _MARGIN / 2 * edge for edge in edges) for edges in _EDGES for sign in (1, -1)]
"""Shares of the sides by which a picture is extended (or cropped, if negative) on the left, top, right and bottom before it is
compared: a hash does not survive a crop of 2 %, but the extended copy is close to the original again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenPicture:
    """A picture that was given as one by a generator."""

    row: int
    """Its position where it is stored."""
    generator: str
    file: str
    """Where it is, for people: a path, or an entry of a gallery."""
    sha256: str
    """Of the file."""
    signature: bytes
    """As of `signature`; empty if there is none, so that only the very file is found."""


@dataclass(frozen=True, slots=True)
class Match:
    """A copy of a probe among given pictures."""

    row: int
    """`GivenPicture.row` of the given picture."""
    copy: KnownCopy


class GivenPictures:
    """Given pictures, searched for copies of probes."""

    def __init__(self, pictures: Iterable[GivenPicture]) -> None:
        self.pictures = tuple(pictures)
        self._by_sha256: dict[str, list[int]] = {}
        for i, picture in enumerate(self.pictures):
            self._by_sha256.setdefault(picture.sha256, []).append(i)
        self._signed = [i for i, picture in enumerate(self.pictures) if len(picture.signature) == SIGNATURE_BYTES]
        content = b"".join(self.pictures[i].signature for i in self._signed)
        hashes, self._colours = _parts(np.frombuffer(content, np.uint8).reshape(-1, SIGNATURE_BYTES))
        self._hashes = np.ascontiguousarray(hashes.T)  # word by word, so that a look-up is a few passes over long rows

    def __call__(self, sha256: str, windows: Bytes) -> list[Match]:
        """Copies of the probe with this hash and these signatures (see `windows`): the very file first, then the nearest."""
        same = self._by_sha256.get(sha256, [])
        best: dict[int, int] = {}
        for bits, colours in zip(*_parts(windows), strict=True):
            distances = np.zeros(len(self._signed), np.uint16)
            for stored, word in zip(self._hashes, bits, strict=True):
                distances += np.bitwise_count(stored ^ word)
            for i in np.flatnonzero(distances <= MAX_DISTANCE).tolist():
                if np.sqrt(np.mean((self._colours[i].astype(np.float64) - colours) ** 2)) <= MAX_COLOUR_RMS:
                    best[self._signed[i]] = min(best.get(self._signed[i], MAX_DISTANCE), int(distances[i]))
        near = sorted((distance, i) for i, distance in best.items() if i not in same)
        return [_match(self.pictures[i], "same file", 0) for i in same] + [_match(self.pictures[i], "near copy", d) for d, i in near]


def signature(pixels: Pixels) -> bytes:
    """The SIGNATURE_BYTES that stand for a picture (H, W, 3); empty for a flat one."""
    image = Image.fromarray(pixels)
    grey = image.convert("L")
    return _signature(image, grey, (0, 0, *image.size))


def windows(pixels: Pixels) -> Bytes:
    """Signatures (n, SIGNATURE_BYTES) of a probe (H, W, 3): as it is, slightly extended and slightly cropped; (0, …) of a flat one."""
    own = signature(pixels)
    if not own:
        return np.zeros((0, SIGNATURE_BYTES), np.uint8)
    image = Image.fromarray(pixels)
    image = image.reduce(max(1, min(image.size) // (4 * HASH_SIZE_PX)))  # it is resized ten times, so it is made small first
    width, height = image.size
    margin_x, margin_y = (1 + int(-(-_MARGIN * side // 1)) for side in image.size)
    padded = Image.fromarray(np.pad(np.asarray(image), ((margin_y, margin_y), (margin_x, margin_x), (0, 0)), "edge"))
    grey = padded.convert("L")
    signed = [own]
    for left, top, right, bottom in _WINDOWS:
        corner = margin_x - left * width, margin_y - top * height
        signed.append(_signature(padded, grey, (*corner, margin_x + width * (1 + right), margin_y + height * (1 + bottom))))
    return np.frombuffer(b"".join(signed), np.uint8).reshape(-1, SIGNATURE_BYTES)


def named(matches: Iterable[Match]) -> tuple[KnownCopy, ...]:
    """The copies that a verdict lists: the very file first, then the nearest, at most MAX_NAMED of each generator."""
    ordered = sorted((match.copy for match in matches), key=lambda copy: (copy.kind != "same file", copy.distance))
    counts: dict[str, int] = {}
    listed = []
    for copy in ordered:
        counts[copy.generator] = counts.get(copy.generator, 0) + 1
        if counts[copy.generator] <= MAX_NAMED:
            listed.append(copy)
    return tuple(listed)


def _match(picture: GivenPicture, kind: Literal["same file", "near copy"], distance: int) -> Match:
    return Match(picture.row, KnownCopy(picture.generator, picture.file, picture.sha256, kind, distance))


def _signature(image: Image.Image, grey: Image.Image, box: tuple[float, float, float, float]) -> bytes:
    size = (HASH_SIZE_PX, HASH_SIZE_PX)
    luminance = np.asarray(grey.resize(size, Image.Resampling.LANCZOS, box=box), np.float64)
    if luminance.std() < MIN_SPREAD:
        return b""
    colours = np.asarray(image.resize((CELLS, CELLS), Image.Resampling.BOX, box=box))
    return np.packbits(_bits(luminance)).tobytes() + colours.tobytes()


def _bits(luminance: Doubles) -> Booleans:
    """Which of the lowest 16 × 16 coefficients of the cosine transform of (64, 64) are above their median."""
    coefficients = _COSINES @ luminance @ _COSINES.T
    return coefficients > np.median(coefficients)


def _parts(signatures: Bytes) -> tuple[npt.NDArray[np.uint64], Bytes]:
    """Hashes (n, 4) as words and colours (n, 192) of signatures (n, SIGNATURE_BYTES)."""
    return np.ascontiguousarray(signatures[:, :HASH_BYTES]).view(np.uint64), signatures[:, HASH_BYTES:]
