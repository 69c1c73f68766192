"""The generators of a gallery as candidates: nothing is generated, their pictures in the gallery are what they are judged by."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..candidates import GALLERY, ExemplarCandidate
from ..candidates.folder import Exemplars
from ..errors import ConfigError
from ..extractors.space import FeatureSpace
from ..images.copies import GivenPictures
from .cache import load_fit
from .entry import StoredEntry
from .store import Gallery, Snapshot


class GallerySource(ExemplarCandidate):
    """The pictures of one generator in a gallery."""

    warnings: tuple[str, ...] = ()

    def __init__(self, name: str, gallery: Gallery, entries: Sequence[StoredEntry]) -> None:
        self.name = name
        self.family = name
        self.entries = sorted(entries, key=lambda entry: entry.picture_sha256)
        self.sha256 = hashlib.sha256("\n".join(entry.picture_sha256 for entry in self.entries).encode()).hexdigest()
        self._gallery = gallery

    def describe(self, space: FeatureSpace) -> Exemplars:
        """Its pictures in `space`, from their stored features."""
        features = self._gallery.features([entry.row for entry in self.entries])
        files = tuple((entry.picture_sha256, None) for entry in self.entries)
        prompts = tuple(entry.prompt for entry in self.entries)
        stored = {picture.row: picture for picture in self._gallery.given().pictures}
        given = [replace(stored[entry.row], row=i) for i, entry in enumerate(self.entries) if entry.row in stored]
        return Exemplars(self.name, files, features, GivenPictures(given), prompts)


def open_sources(folder: Path, space: FeatureSpace, fit: str | None = None) -> GallerySources:
    """The sources in the gallery's general group or, with a fit (the first digits of its hash), in that fit's snapshot.

    BundleError if there is no gallery in `folder`, or it is of another extractor; ConfigError if there is no such fit.
    """
    gallery = Gallery.open(folder, space.sha256)
    sha256 = load_fit(gallery, fit).sha256 if fit else None
    return GallerySources(gallery, gallery.snapshot(keys=gallery.read_fit(sha256).keys) if sha256 else gallery.snapshot())


class GallerySources:
    """Opens gallery: (all generators) and gallery:NAME, among the entries of `snapshot`."""

    def __init__(self, gallery: Gallery, snapshot: Snapshot) -> None:
        self._gallery = gallery
        rows = {int(row) for row in snapshot.rows}
        self._entries: dict[str, list[StoredEntry]] = {name: [] for name in sorted(set(snapshot.generators))}
        for name, entries in self._entries.items():
            entries += [entry for entry in gallery.select(generator=name) if entry.row in rows]

    def __call__(self, text: str) -> list[GallerySource]:
        """The candidates of `text`; ConfigError if the gallery is empty, or has no such generator."""
        name = text.removeprefix(GALLERY)
        if not self._entries:
            raise ConfigError(f"{self._gallery.folder} holds no picture; add some with `resynth gallery add NAME DIR`")
        if name and name not in self._entries:
            raise ConfigError(f"{self._gallery.folder} has no pictures of {name[:80]!r}; it has {', '.join(self._entries)}")
        return [GallerySource(key, self._gallery, entries) for key, entries in self._entries.items() if not name or key == name]
