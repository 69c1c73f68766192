"""The gallery: add, look up, read, search, freeze, verify and prune entries."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import files
from ..devices.base import CPU, Device
from ..errors import BundleError, ConfigError
from ..images.copies import GivenPicture, GivenPictures
from ..types import Floats, Integers, Pixels
from . import fits, layout, nearest, pictures
from .entry import GENERAL, Entry, ResynthesisKey, StoredEntry, check_group, key_of, pixels_sha256
from .fits import StoredFit
from .index import Facts, Index, Record
from .layout import Layout
from .lock import locked, refuse_other_files
from .nearest import Neighbour, Search
from .vectors import Vectors

_CHUNK = 256


@dataclass(frozen=True, slots=True)
class Damage:
    """A damaged entry, and what is wrong with it."""

    row: int
    generator: str | None
    """None if the record itself cannot be read."""
    key: str
    reason: str


@dataclass(frozen=True, slots=True)
class Added:
    """The entries of one call of `Gallery.add`, as the gallery holds them."""

    entries: tuple[StoredEntry, ...]
    """In the order of the call."""
    new: tuple[bool, ...]
    """False: the gallery had it before, or the same call names it earlier."""


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """A frozen set of entries, ordered by key: the same entries give the same hash in any gallery, in any order of adding."""

    sha256: str
    """Hash over the extractor's hash and the key and checksum of every entry, thus over all provenance and every feature."""
    keys: tuple[bytes, ...]
    rows: Integers
    generators: tuple[str, ...]
    prompts: tuple[str | None, ...]

    def __len__(self) -> int:
        return len(self.keys)


class Gallery:
    """References of one extractor in one folder, opened with `open` or `create`.

    Several processes may read and write at once. Threads may share an object; a forked process must open its own.
    Features are float32 rows, unscaled: all columns of the extractor, or those of its blocks one after another.

    Raises:
        BundleError: There is no gallery, it is broken, or it belongs to another extractor.
        ConfigError: The folder holds other files, or an argument is wrong.
        DeviceError: Another process holds the write lock for too long.

    Example:
        >>> with Gallery.create(folder, Layout.of(space)) as gallery:  # doctest: +SKIP
        ...     gallery.add([Entry(generator="name", picture_sha256=picture.sha256)], space.features([picture.pixels]))
        ...     gallery.nearest(space.features([probe.pixels]), ["colour"], per_generator=4)
    """

    def __init__(self, folder: Path, layout: Layout, index: Index) -> None:
        """Use `open` or `create` instead."""
        self.folder = folder
        self.layout = layout
        self._index = index
        self._vectors = Vectors(folder, layout)
        self._facts: Facts | None = None
        self._searches: dict[tuple[str, ...], Search] = {}

    @classmethod
    def open(cls, folder: Path, extractor_sha256: str | None = None) -> Gallery:
        """The gallery in `folder`; BundleError if there is none, if it is broken, or if it belongs to another extractor."""
        stored = layout.read(folder)
        if extractor_sha256 is not None and stored.sha256 != extractor_sha256:
            raise BundleError(
                f"{folder} holds features of the extractor {stored.name} {stored.sha256[:12]}…, not of {extractor_sha256[:12]}…:"
                " they cannot be compared; name another gallery, or use that extractor"
            )
        gallery = cls(folder, stored, Index(folder))
        try:
            gallery._vectors.available()
        except BaseException:
            gallery.close()
            raise
        return gallery

    @classmethod
    def create(cls, folder: Path, extractor: Layout) -> Gallery:
        """The gallery in `folder`, created if there is none. Raises as `open`; ConfigError if the folder holds other files."""
        if folder.exists() and not folder.is_dir():
            raise ConfigError(f"{folder} is a file; name a folder for the gallery")
        with files.write_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            if not (folder / layout.MANIFEST).exists():
                refuse_other_files(folder)
                with locked(folder):
                    if not (folder / layout.MANIFEST).exists():  # no other process has created it meanwhile
                        Vectors(folder, extractor).create()
                        Index.create(folder)
                        layout.write(folder, extractor)
                        files.sync_folder(folder.parent)
        gallery = cls.open(folder, extractor.sha256)
        if dict(gallery.layout.blocks) != dict(extractor.blocks):
            gallery.close()
            raise BundleError(f"{folder} has other blocks than the extractor {extractor.name}; name another gallery")
        return gallery

    def close(self) -> None:
        """Close the index; the object cannot be used afterwards."""
        self._index.close()

    def __enter__(self) -> Gallery:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return self._index.count()

    def add(
        self,
        entries: Sequence[Entry],
        features: Floats,
        *,
        group: str = GENERAL,
        pixels: Sequence[Pixels | None] | None = None,
        signatures: Sequence[bytes] | None = None,
    ) -> Added:
        """Store references with their features (n, d), unscaled: all of the call or, after a crash, none of it.

        An entry that the gallery has already stays as it is and only joins `group`. `pixels` of resyntheses, if given, are
        stored as PNG. `signatures` of pictures (`images.copies`), if given, are stored, also for entries that are there but
        have none. Everything is on the disk when this returns.
        """
        if len(entries) != len(features):
            raise ConfigError(f"{len(entries)} entries, but {len(features)} rows of features; give one row for each entry")
        check_group(group)
        values = self.layout.stored(features)
        norms = self.layout.norms(values)
        for entry, picture in zip(entries, pixels or (), strict=bool(pixels)):
            if picture is not None:
                self._store_pixels(entry, picture)
        with self._writing():
            present = self._index.by_key({entry.key for entry in entries})
            first_of = {entry.key: i for i, entry in reversed(list(enumerate(entries)))}
            absent = sorted(i for key, i in first_of.items() if key not in present)
            first = max(self._index.next_row(), self._vectors.end())
            if absent:
                self._vectors.write(first, values[absent])
            now = _now()
            for row, i in enumerate(absent, start=first):
                checksum = entries[i].checksum(values[i].data)
                self._index.insert(row, entries[i], checksum, norms[i].astype("<f4").tobytes(), now)
            rows = [*range(first, first + len(absent)), *(record.row for record in present.values())]
            self._index.join(rows, group)
            stored = self._index.by_key({entry.key for entry in entries})
            self._index.sign({stored[e.key].row: s for e, s in zip(entries, signatures or (), strict=bool(signatures)) if s})
        new = set(absent)
        return Added(tuple(stored[entry.key].readable() for entry in entries), tuple(i in new for i in range(len(entries))))

    def lookup(self, origin: ResynthesisKey) -> StoredEntry | None:
        """The resynthesis with exactly this origin, or None. A damaged one is quarantined and counts as missing."""
        key = key_of(origin)
        record = self._index.by_key([key]).get(key)
        if record is None:
            return None
        if self._damage([record]):
            self.prune([record.row])
            return None
        return record.readable()

    def contains(self, picture_sha256: str) -> list[StoredEntry]:
        """The entries of one picture, by any generator."""
        return [record.readable() for record in self._index.select(None, None, None, picture_sha256)]

    def given(self) -> GivenPictures:
        """All added pictures, to find copies of probes; those added before signatures were stored are found by their hash alone."""
        name = self.folder.name
        return GivenPictures(
            GivenPicture(row=row, generator=generator, file=f"entry {row} of {name}", sha256=sha256, signature=signature)
            for row, generator, sha256, signature in self._index.given()
        )

    def select(self, *, generator: str | None = None, prompt: str | None = None, group: str | None = None) -> list[StoredEntry]:
        """Entries that match all given arguments, the oldest first."""
        return [record.readable() for record in self._index.select(generator, prompt, group, None)]

    def features(self, rows: Iterable[int] | Integers) -> Floats:
        """Features (n, d) float32 of entries by row, unscaled and checked; BundleError if one is damaged or missing."""
        _, values = self._checked(np.asarray(rows if isinstance(rows, np.ndarray) else list(rows), np.int64))
        return values.astype(np.float32, copy=False)

    def nearest(
        self,
        queries: Floats,
        blocks: Sequence[str],
        *,
        per_generator: int = 4,
        rows: Integers | None = None,
        device: Device[Any] = CPU,
    ) -> list[dict[str, tuple[Neighbour, ...]]]:
        """References of similar content: for each of `queries` (n, d), by generator, those with the highest cosine in `blocks`, scaled.

        `rows` restricts the search; with the rows of a snapshot the result does not depend on later additions. Returned
        entries are checked: BundleError if one is damaged. On a `device` other than the CPU the scan runs there, on a copy
        of the blocks that stays on the device.
        """
        if per_generator < 1:
            raise ConfigError(f"per_generator is {per_generator}; it must be at least 1")
        search = self._search(blocks)
        mapped = {name: self._vectors.block(name, len(search.weights)) for name in search.columns}
        matches = list(search(mapped, queries, per_generator, rows, device))
        matched = np.unique(np.array([row for of_query in matches for row, _ in of_query], np.int64))
        entries: dict[int, StoredEntry] = {}
        for start in range(0, len(matched), _CHUNK):
            records, _ = self._checked(matched[start : start + _CHUNK])
            entries |= {row: record.readable() for row, record in records.items()}
        return [nearest.by_generator(of_query, entries) for of_query in matches]

    def picture(self, entry: Entry) -> Pixels | None:
        """The pixels (H, W, 3) of a resynthesis, None if they are not stored; BundleError if they are damaged."""
        return pictures.read(self.folder, entry.picture_sha256) if entry.origin else None

    def resynthesis(self, origin: ResynthesisKey) -> tuple[StoredEntry, Pixels] | None:
        """As `lookup`, with the pixels; also None if they are not stored, or are damaged and set aside."""
        entry = self.lookup(origin)
        if entry is None:
            return None
        try:
            pixels = self.picture(entry)
        except BundleError:
            pictures.set_aside(self.folder, entry.picture_sha256)
            pixels = None
        return None if pixels is None else (entry, pixels)

    def snapshot(self, groups: Sequence[str] = (GENERAL,), *, keys: Sequence[bytes] | None = None) -> Snapshot:
        """Freeze the entries in any of `groups`, or exactly the entries `keys` of a fit; BundleError if one of those is missing."""
        members = self._index.members(groups if keys is None else None)
        if keys is not None:
            wanted = set(keys)
            members = [member for member in members if member[1] in wanted]
            if missing := wanted.difference(member[1] for member in members):
                raise BundleError(
                    f"{self.folder} lacks {len(missing)} entries of the snapshot, one is {min(missing).hex()[:12]}…; fit again"
                )
        digest = hashlib.sha256(self.layout.sha256.encode())
        for _, key, checksum, _, _ in members:
            digest.update(key + checksum)
        return Snapshot(
            sha256=digest.hexdigest(),
            keys=tuple(key for _, key, _, _, _ in members),
            rows=np.array([row for row, _, _, _, _ in members], np.int64),
            generators=tuple(generator for _, _, _, generator, _ in members),
            prompts=tuple(prompt for _, _, _, _, prompt in members),
        )

    def write_fit(self, snapshot: Snapshot, arrays: Mapping[str, npt.NDArray[Any]], settings: Mapping[str, Any]) -> str:
        """Store a fit on a snapshot and return its hash. `settings` is JSON."""
        return fits.write(self.folder, snapshot.sha256, snapshot.keys, arrays, settings)

    def read_fit(self, sha256: str) -> StoredFit:
        """A fit by its hash; BundleError if it is missing or was changed."""
        return fits.read(self.folder, sha256)

    def fits(self) -> list[str]:
        """Hashes of all fits, the newest first."""
        return fits.names(self.folder)

    def summary(self) -> list[dict[str, Any]]:
        """Number of entries, prompts and resyntheses of each generator."""
        fields = ("generator", "entries", "prompts", "resyntheses")
        return [dict(zip(fields, row, strict=True)) for row in self._index.summary()]

    def groups(self) -> dict[str, int]:
        """Number of entries of each group."""
        return self._index.groups()

    def verify(self) -> list[Damage]:
        """Read everything and return the damaged entries; BundleError if the index itself is damaged. Others may write meanwhile."""
        if faults := self._index.check():
            raise BundleError(f"{self._index.path} is broken ({'; '.join(faults)[:300]}); restore it from a copy")
        damaged: list[Damage] = []
        for records in self._chunks():
            damaged += self._damage(records)
        return damaged

    def prune(self, rows: Iterable[int] | None = None) -> list[Damage]:
        """Move damaged entries (among `rows`, if given) into quarantine, where nothing finds them; return them.

        The record of an entry is kept beside the reason. Its row is never used again; its key can be added again.
        """
        with self._writing():
            damaged = self.verify() if rows is None else self._damage(list(self._index.by_row(rows).values()))
            for one in damaged:
                self._index.quarantine(one.row, one.reason, _now())
        self._facts = None
        return damaged

    def remove(self, rows: Iterable[int]) -> int:
        """Take entries out into quarantine, as `prune` does; return their number."""
        with self._writing():
            present = self._index.by_row(rows)
            for row in present:
                self._index.quarantine(row, "removed", _now())
        self._facts = None
        return len(present)

    def set_prompt(self, rows: Sequence[int], prompt: str | None) -> int:
        """Give added pictures another prompt; how many had another one. InputError if it cannot be stored, or for a resynthesis."""
        with self._writing():
            records, values = self._checked(np.array(rows, np.int64))
            entries = [records[row].readable() for row in rows]
            for entry, value in zip(entries, values, strict=True):
                new = Entry(generator=entry.generator, picture_sha256=entry.picture_sha256, prompt=prompt, origin=entry.origin)
                self._index.set_prompt(entry.row, prompt, new.checksum(value.data))
        return sum(entry.prompt != prompt for entry in entries)

    def _checked(self, rows: Integers) -> tuple[dict[int, Record], npt.NDArray[Any]]:
        """Records and stored vectors (n, d) of entries; BundleError if one is damaged or missing."""
        records = self._index.by_row(rows.tolist())
        if missing := [row for row in rows.tolist() if row not in records]:
            raise BundleError(f"{self.folder} has no entry in row {missing[0]}; it may be in quarantine")
        if len(rows) and int(rows.max()) >= self._vectors.available():
            raise BundleError(f"the vectors of {self.folder} were cut short; run `resynth gallery prune`")
        values = self._vectors.read(rows)
        for row, value in zip(rows.tolist(), values, strict=True):
            if reason := records[row].damage(value):
                raise BundleError(f"row {row} of {self.folder} is damaged ({reason}); run `resynth gallery prune`")
        return records, values

    def _search(self, blocks: Sequence[str]) -> Search:
        facts, search = self._current(), self._searches.get(tuple(blocks))
        if search is None or search.facts is not facts:
            search = self._searches[tuple(blocks)] = Search.of(self.layout, blocks, facts)
        return search

    def _current(self) -> Facts:
        self._facts = self._index.facts(len(self.layout.blocks), self._vectors.available, self._facts)
        return self._facts

    def _chunks(self) -> Iterator[list[Record]]:
        row = -1
        while records := self._index.after(row, _CHUNK):
            yield records
            row = records[-1].row

    def _damage(self, records: Sequence[Record]) -> list[Damage]:
        """The damaged entries among `records`."""
        available = self._vectors.available()
        complete = [record for record in records if 0 <= record.row < available]
        values = self._vectors.read(np.array([record.row for record in complete], np.int64))
        norms = self.layout.norms(values)
        reasons = {record.row: record.damage(value, norm) for record, value, norm in zip(complete, values, norms, strict=True)}
        return [
            Damage(record.row, record.entry.generator if isinstance(record.entry, StoredEntry) else None, record.key.hex(), reason)
            for record in records
            if (reason := reasons.get(record.row, "its vector is missing: a file was cut short"))
        ]

    def _store_pixels(self, entry: Entry, pixels: Pixels) -> None:
        if entry.origin is None:
            raise ConfigError(f"pixels of {entry.picture_sha256[:12]}… cannot be stored, it is not a resynthesis; pass None for it")
        if pixels_sha256(pixels) != entry.picture_sha256:
            raise ConfigError(f"picture_sha256 {entry.picture_sha256[:12]}… is not the hash of the pixels; use pixels_sha256")
        pictures.write(self.folder, entry.picture_sha256, pixels)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with locked(self.folder), self._index.transaction():
            yield


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
