"""A candidate that cannot be run: a folder of pictures known to come from it, as from a commercial service or a camera.

It generates nothing. Beside generative candidates it is represented by a sample of its pictures (see
`resynthesis/exemplars.py`). Among sources that cannot be run, it is judged by all its pictures (see `scoring/sources.py`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import images
from ..engines.pool import EnginePool
from ..errors import BundleError, ConfigError, InputError
from ..extractors.space import FeatureSpace
from ..images.copies import GivenPicture, GivenPictures, signature
from ..kernels.topk import nearest_rows
from ..plugins import scheme
from ..types import Doubles, Floats, Integers, Pixels
from . import ExemplarCandidate, split_name

CHUNK = 16
"""Number of pictures in memory at once."""
SAMPLE = 16
"""Number of pictures in a sample; more were no better on the zoo."""


def matches(text: str) -> bool:
    """Whether `text` is NAME=FOLDER."""
    name, source = split_name(text)
    return bool(name) and not scheme(source)


def open(text: str, pool: EnginePool) -> list[FolderCandidate]:
    """The candidate NAME=FOLDER."""
    name, folder = split_name(text)
    return [FolderCandidate(name, Path(folder))]


class FolderCandidate(ExemplarCandidate):
    """A folder of exemplars, each distinct file once. They are read when they are described, and not kept in memory."""

    def __init__(self, name: str, folder: Path) -> None:
        """ConfigError if `folder` is not a folder; BundleError, naming the file, if it has no picture or one cannot be read."""
        if not folder.is_dir():
            raise ConfigError(f"candidate {name}: {images.printable(str(folder))} is no folder; name the folder of its pictures")
        self.name = name
        self.family = name
        with _faults(name):
            hashed = [(images.digest(path), path) for path in images.paths([folder])]
        self.files = dict(reversed(hashed))  # of equal files, the first path stays
        self.sha256 = hashlib.sha256("\n".join(sorted(self.files)).encode()).hexdigest()
        self.warnings: tuple[str, ...] = ()

    def describe(self, space: FeatureSpace) -> Exemplars:
        """Its pictures in `space`; BundleError, naming the file, if one cannot be decoded."""
        files = list(self.files.values())
        chunks = [files[i : i + CHUNK] for i in range(0, len(files), CHUNK)]
        features: list[Floats] = []
        given: list[GivenPicture] = []
        with _faults(self.name):
            for chunk in chunks:
                pictures = [images.read(path) for path in chunk]
                features.append(space.features([picture.pixels for picture in pictures]))
                given += [
                    GivenPicture(
                        row=len(given) + i,
                        generator=self.name,
                        file=images.printable(str(path)),
                        sha256=picture.sha256,
                        signature=signature(picture.pixels),
                    )
                    for i, (path, picture) in enumerate(zip(chunk, pictures, strict=True))
                ]
        return Exemplars(self.name, tuple(self.files.items()), np.concatenate(features), GivenPictures(given))


@dataclass(frozen=True, slots=True)
class Exemplars:
    """A source's pictures and their features by one extractor."""

    name: str
    files: tuple[tuple[str, Path | None], ...]
    """SHA-256 and path of each; None: a gallery holds its features alone."""
    features: Floats
    """(n, d), unscaled"""
    given: GivenPictures
    """The same pictures, to find copies of a probe"""
    prompts: tuple[str | None, ...] = ()
    """Prompt of each, where it is known; empty: of none."""

    def nearest(self, points: Doubles, point: Doubles, count: int, left_out: Collection[int] = ()) -> SelectedExemplars:
        """The `count` pictures whose content is nearest to the probe `point` (d,), the nearest first, without the rows `left_out`.

        `points` (n, d) are the pictures in the probe's space.

        They are compared by the cosine after the mean of the source's pictures is subtracted. The mean is what the pictures
        have in common, which tells sources apart, so it must not decide which pictures are compared. `left_out` are copies
        of the probe, which is never its own reference. BundleError if there is no other picture.
        """
        others = self._others(left_out)
        centre = points[others].mean(0)
        pictures, probe = points[others] - centre, point - centre
        directions = pictures / (np.linalg.norm(pictures, axis=1, keepdims=True) + 1e-300)
        rows = others[nearest_rows(probe[None], directions, count)[0, 0]]
        return SelectedExemplars(self.name, points[rows], tuple(self.files[i][1] for i in rows))

    def sample(self, left_out: Collection[int] = ()) -> SelectedExemplars:
        """A fixed sample without the rows `left_out`, and without points. By hash, since file names may be ordered by content."""
        rows = sorted(self._others(left_out), key=lambda i: self.files[i][0])[:SAMPLE]
        return SelectedExemplars(self.name, np.zeros((0, self.features.shape[1])), tuple(self.files[i][1] for i in rows))

    def _others(self, left_out: Collection[int]) -> Integers:
        others = np.array([i for i in range(len(self.files)) if i not in left_out], np.int64)
        if not len(others):
            raise BundleError(f"candidate {self.name} has no picture but copies of the probe; add others to its folder")
        return others


@dataclass(frozen=True, slots=True)
class SelectedExemplars:
    """Exemplars of one source that are the references of one probe."""

    name: str
    points: Doubles
    """(K, d)"""
    files: tuple[Path | None, ...]

    def pixels(self) -> list[Pixels]:
        """The pictures (H, W, 3) uint8 whose files are known. They are read again from disk."""
        with _faults(self.name):
            return [images.read(path).pixels for path in self.files if path]


@contextmanager
def _faults(name: str) -> Iterator[None]:
    """Turn an unreadable picture of a candidate into an error of the candidate, not of the probe."""
    try:
        yield
    except InputError as error:
        raise BundleError(f"candidate {name}: {error}; or take it out of the folder") from error
