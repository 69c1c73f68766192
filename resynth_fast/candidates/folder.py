"""A candidate that nobody can run: a folder of pictures that are known to come from it, a commercial source or a camera.

It makes nothing. Beside candidates that can be run it is judged by a sample of its pictures (see `given.py`); among
folders alone, its references for a probe are those of its pictures that show most nearly what the probe shows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import images
from ..engines.pool import EnginePool
from ..errors import BundleError, ConfigError, InputError
from ..extractors.space import FeatureSpace
from ..kernels.topk import nearest_rows
from ..plugins import scheme
from ..types import Doubles, Integers, Pixels
from . import ExemplarCandidate, split_name

CHUNK = 16
"""Pictures in memory at once."""
SAMPLE = 16
"""Pictures of a sample; more were no better on the zoo."""


def matches(text: str) -> bool:
    """Whether `text` is NAME=FOLDER."""
    name, source = split_name(text)
    return bool(name) and not scheme(source)


def open(text: str, pool: EnginePool) -> list[FolderCandidate]:
    """The candidate NAME=FOLDER."""
    name, folder = split_name(text)
    return [FolderCandidate(name, Path(folder))]


class FolderCandidate(ExemplarCandidate):
    """Given pictures, each distinct one once; read when they are described, and never kept in memory."""

    def __init__(self, name: str, folder: Path) -> None:
        """ConfigError if `folder` is none; BundleError, naming the file, if it holds no picture or one cannot be read."""
        if not folder.is_dir():
            raise ConfigError(f"candidate {name}: {images.printable(str(folder))} is no folder; name the folder of its pictures")
        self.name = name
        self.family = name
        with _faults(name):
            found = [(images.digest(path), path) for path in images.paths([folder])]
        self.files = dict(reversed(found))  # of equal files, the first path
        self.sha256 = hashlib.sha256("\n".join(sorted(self.files)).encode()).hexdigest()
        self.warnings: tuple[str, ...] = (f"the references of {name} are given pictures, for which probabilities are not calibrated",)

    def describe(self, space: FeatureSpace) -> Exemplars:
        """Its pictures in `space`; BundleError, naming the file, if one cannot be decoded."""
        files = list(self.files.values())
        chunks = [files[i : i + CHUNK] for i in range(0, len(files), CHUNK)]
        with _faults(self.name):
            points = [space([images.read(path).pixels for path in chunk]) for chunk in chunks]
        return Exemplars(self.name, tuple(self.files.items()), np.concatenate(points))


@dataclass(frozen=True, slots=True)
class Exemplars:
    """A source's pictures as points of one feature space."""

    name: str
    files: tuple[tuple[str, Path], ...]
    """SHA-256 and path of each."""
    points: Doubles
    """(n, d)"""

    def nearest(self, point: Doubles, count: int, sha256: str) -> SelectedExemplars:
        """Of the probe `point` (d,) with this hash, the `count` pictures most like it in content, the nearest first.

        Compared by the cosine after the source's own mean, what its pictures have in common, is taken off: that is the
        question, and must not decide what it is asked with. The probe itself is never its own reference; BundleError if
        nothing else is there.
        """
        others = self._others(sha256)
        centre = self.points[others].mean(0)
        pictures, probe = self.points[others] - centre, point - centre
        directions = pictures / (np.linalg.norm(pictures, axis=1, keepdims=True) + 1e-300)
        return self._chosen(others[nearest_rows(probe[None], directions, count)[0, 0]])

    def sample(self, sha256: str) -> SelectedExemplars:
        """A fixed sample without the probe of this hash; drawn by hash, since names may follow content."""
        return self._chosen(sorted(self._others(sha256), key=lambda i: self.files[i][0])[:SAMPLE])

    def holds(self, sha256: str) -> bool:
        """Whether the file of this hash is one of them."""
        return any(other == sha256 for other, _ in self.files)

    def _others(self, sha256: str) -> Integers:
        others = np.array([i for i, (other, _) in enumerate(self.files) if other != sha256], np.int64)
        if not len(others):
            raise BundleError(f"candidate {self.name} has no picture but the probe; add others to its folder")
        return others

    def _chosen(self, rows: Sequence[int] | Integers) -> SelectedExemplars:
        return SelectedExemplars(self.name, self.points[np.asarray(rows, np.int64)], tuple(self.files[i][1] for i in rows))


@dataclass(frozen=True, slots=True)
class SelectedExemplars:
    """References of one probe out of given pictures."""

    name: str
    points: Doubles
    """(K, d)"""
    files: tuple[Path, ...]

    def pixels(self) -> list[Pixels]:
        """The pictures (H, W, 3) uint8, read again."""
        with _faults(self.name):
            return [images.read(path).pixels for path in self.files]


@contextmanager
def _faults(name: str) -> Iterator[None]:
    """A bad picture of a candidate is the candidate's fault, not the probe's."""
    try:
        yield
    except InputError as error:
        raise BundleError(f"candidate {name}: {error}; or take it out of the folder") from error
