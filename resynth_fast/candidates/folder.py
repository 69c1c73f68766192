"""A candidate that cannot be run: a folder of pictures known to come from it, as from a commercial service or a camera.

It generates nothing. Beside generative candidates it is represented by a sample of its pictures (see
`resynthesis/exemplars.py`). Among folders alone, its references for a probe are its pictures whose content is nearest to
the probe's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
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
from ..types import Doubles, Integers, Pixels
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
        self.warnings: tuple[str, ...] = (f"the references of {name} are exemplars, for which probabilities are not calibrated",)

    def describe(self, space: FeatureSpace) -> Exemplars:
        """Its pictures in `space`; BundleError, naming the file, if one cannot be decoded."""
        files = list(self.files.values())
        chunks = [files[i : i + CHUNK] for i in range(0, len(files), CHUNK)]
        points: list[Doubles] = []
        given: list[GivenPicture] = []
        with _faults(self.name):
            for chunk in chunks:
                pictures = [images.read(path) for path in chunk]
                points.append(space([picture.pixels for picture in pictures]))
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
        return Exemplars(self.name, tuple(self.files.items()), np.concatenate(points), GivenPictures(given))


@dataclass(frozen=True, slots=True)
class Exemplars:
    """A source's pictures as points of one feature space."""

    name: str
    files: tuple[tuple[str, Path], ...]
    """SHA-256 and path of each."""
    points: Doubles
    """(n, d)"""
    given: GivenPictures
    """The same pictures, to find copies of a probe"""

    def nearest(self, point: Doubles, count: int, left_out: Collection[int] = ()) -> SelectedExemplars:
        """The `count` pictures whose content is nearest to the probe `point` (d,), the nearest first, without the rows `left_out`.

        They are compared by the cosine after the mean of the source's pictures is subtracted. The mean is what the pictures
        have in common, which tells sources apart, so it must not decide which pictures are compared. `left_out` are copies
        of the probe, which is never its own reference. BundleError if there is no other picture.
        """
        others = self._others(left_out)
        centre = self.points[others].mean(0)
        pictures, probe = self.points[others] - centre, point - centre
        directions = pictures / (np.linalg.norm(pictures, axis=1, keepdims=True) + 1e-300)
        return self._select(others[nearest_rows(probe[None], directions, count)[0, 0]])

    def sample(self, left_out: Collection[int] = ()) -> SelectedExemplars:
        """A fixed sample without the rows `left_out`. It is ordered by hash, since file names may be ordered by content."""
        return self._select(sorted(self._others(left_out), key=lambda i: self.files[i][0])[:SAMPLE])

    def _others(self, left_out: Collection[int]) -> Integers:
        others = np.array([i for i in range(len(self.files)) if i not in left_out], np.int64)
        if not len(others):
            raise BundleError(f"candidate {self.name} has no picture but copies of the probe; add others to its folder")
        return others

    def _select(self, rows: Sequence[int] | Integers) -> SelectedExemplars:
        return SelectedExemplars(self.name, self.points[np.asarray(rows, np.int64)], tuple(self.files[i][1] for i in rows))


@dataclass(frozen=True, slots=True)
class SelectedExemplars:
    """Exemplars of one source that are the references of one probe."""

    name: str
    points: Doubles
    """(K, d)"""
    files: tuple[Path, ...]

    def pixels(self) -> list[Pixels]:
        """The pictures (H, W, 3) uint8. They are read again from disk."""
        with _faults(self.name):
            return [images.read(path).pixels for path in self.files]


@contextmanager
def _faults(name: str) -> Iterator[None]:
    """Turn an unreadable picture of a candidate into an error of the candidate, not of the probe."""
    try:
        yield
    except InputError as error:
        raise BundleError(f"candidate {name}: {error}; or take it out of the folder") from error
