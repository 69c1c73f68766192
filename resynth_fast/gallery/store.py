"""The gallery itself: add, look up, read, search, freeze, verify, prune."""

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
from filelock import FileLock, Timeout

from .. import files
from ..devices.base import CPU, Device
from ..errors import BundleError, ConfigError, DeviceError
from ..types import Pixels
from . import fits, layout, nearest, pictures
from .entry import GENERAL, Entry, ResynthesisKey, StoredEntry, check_group, key_of, pixels_sha256
from .fits import StoredFit
from .index import Facts, Index, Record
from .layout import Layout
from .nearest import Neighbour, Search
from .vectors import Vectors

LOCK = "write.lock"
LOCK_WAIT_S = 120.0
_POLL_S = 0.005
_CHUNK = 256


@dataclass(frozen=True, slots=True)
class Damage:
    """An entry that must not be used, and why."""

    row: int
    generator: str | None
    """None where the record itself cannot be read."""
    key: str
    reason: str


@dataclass(frozen=True, slots=True)
class Added:
    """What a call of `Gallery.add` was given, as it now stands in the gallery."""

    entries: tuple[StoredEntry, ...]
    """In the order of the call."""
    new: tuple[bool, ...]
    """False: it was there before, or stands earlier in the same call."""


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """A frozen set of entries, ordered by key: the same entries give the same hash in any gallery, in whatever order they came."""

    sha256: str
    """Over the extractor's hash and every entry's key and checksum: over all provenance and every stored feature."""
    keys: tuple[bytes, ...]
    rows: npt.NDArray[np.int64]
    generators: tuple[str, ...]
    prompts: tuple[str | None, ...]

    def __len__(self) -> int:
        return len(self.keys)


class Gallery:
    """References of one extractor in one folder.

    >>> with Gallery.create(folder, Layout.of(space)) as gallery:
    ...     gallery.add([Entry(generator="name", picture_sha256=picture.sha256)], space.features([picture.pixels]))
    ...     gallery.nearest(space.features([probe.pixels]), ["colour"], per_generator=4)

    Several processes may read and write at once; threads may share an object, a fork must open its own.
    """

    def __init__(self, folder: Path, layout: Layout, index: Index) -> None:
        """Use `open` or `create`."""
        self.folder = folder
        self.layout = layout
        self._index = index
        self._vectors = Vectors(folder, layout)
        self._facts: Facts | None = None
        self._searches: dict[tuple[str, ...], Search] = {}

    @classmethod
    def open(cls, folder: Path, extractor_sha256: str | None = None) -> Gallery:
        """The gallery in `folder`; BundleError if there is none, if it is broken, or if it belongs to another extractor."""
        found = layout.read(folder)
        if extractor_sha256 is not None and found.sha256 != extractor_sha256:
            raise BundleError(
                f"{folder} holds features of the extractor {found.name} {found.sha256[:12]}…, not of {extractor_sha256[:12]}…:"
                " they cannot be compared; name another gallery, or use that extractor"
            )
        gallery = cls(folder, found, Index(folder))
        try:
            gallery._vectors.available()
        except BaseException:
            gallery.close()
            raise
        return gallery

    @classmethod
    def create(cls, folder: Path, extractor: Layout) -> Gallery:
        """The gallery in `folder`, begun if it is not there; errors as `open`, ConfigError for a folder that holds anything else."""
        if folder.exists() and not folder.is_dir():
            raise ConfigError(f"{folder} is a file; name a folder for the gallery")
        with files.write_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            if not (folder / layout.MANIFEST).exists():
                _refuse_strangers(folder)
                with _locked(folder):
                    if not (folder / layout.MANIFEST).exists():  # nobody else has begun it meanwhile
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
        """Let go of the index; the object is of no use afterwards."""
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
        features: npt.NDArray[np.float32],
        *,
        group: str = GENERAL,
        pixels: Sequence[Pixels | None] | None = None,
    ) -> Added:
        """Keep references with their features (n, d), unscaled; all of the call or, after a crash, nothing of it.

        What is there already stays as it is and only joins `group`. `pixels` of resyntheses are kept as PNG where
        given. On the disk when this returns.
        """
        if len(entries) != len(features):
            raise ConfigError(f"{len(entries)} entries, but features of {len(features)}; give a row for each entry")
        check_group(group)
        values = self.layout.stored(features)
        norms = self.layout.norms(values)
        for entry, picture in zip(entries, pixels or (), strict=bool(pixels)):
            if picture is not None:
                self._keep(entry, picture)
        with self._writing():
            there = self._index.by_key({entry.key for entry in entries})
            first_of = {entry.key: i for i, entry in reversed(list(enumerate(entries)))}
            chosen = sorted(i for key, i in first_of.items() if key not in there)
            first = max(self._index.next_row(), self._vectors.end())
            if chosen:
                self._vectors.write(first, values[chosen])
            now = _now()
            for row, i in enumerate(chosen, start=first):
                checksum = entries[i].checksum(values[i].data)
                self._index.insert(row, entries[i], checksum, norms[i].astype("<f4").tobytes(), now)
            rows = [*range(first, first + len(chosen)), *(record.row for record in there.values())]
            self._index.join(rows, group)
            stored = self._index.by_key({entry.key for entry in entries})
        new = set(chosen)
        return Added(tuple(stored[entry.key].readable() for entry in entries), tuple(i in new for i in range(len(entries))))

    def lookup(self, origin: ResynthesisKey) -> StoredEntry | None:
        """The resynthesis with exactly this origin. A damaged one goes into quarantine and None is given: make it again."""
        key = key_of(origin)
        record = self._index.by_key([key]).get(key)
        if record is None:
            return None
        if self._damage([record]):
            self.prune([record.row])
            return None
        return record.readable()

    def contains(self, picture_sha256: str) -> list[StoredEntry]:
        """The entries of one picture, by whichever generator."""
        return [record.readable() for record in self._index.select(None, None, None, picture_sha256)]

    def select(self, *, generator: str | None = None, prompt: str | None = None, group: str | None = None) -> list[StoredEntry]:
        """Entries for which everything that is given holds, the oldest first."""
        return [record.readable() for record in self._index.select(generator, prompt, group, None)]

    def features(self, rows: Iterable[int] | npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Rows of entries → (n, d) float32, unscaled, each checked; BundleError if one is damaged or not there."""
        _, values = self._checked(np.asarray(rows if isinstance(rows, np.ndarray) else list(rows), np.int64))
        return values.astype(np.float32, copy=False)

    def nearest(
        self,
        queries: npt.NDArray[np.float32],
        blocks: Sequence[str],
        *,
        per_generator: int = 4,
        rows: npt.NDArray[np.int64] | None = None,
        device: Device[Any] = CPU,
    ) -> list[dict[str, tuple[Neighbour, ...]]]:
        """References of like content: for each of `queries` (n, d), by generator, those with the highest cosine in `blocks`, scaled.

        `rows` narrows the search; give a snapshot's where the answer must not depend on what was added since. What is
        returned was checked: BundleError if it is damaged. On another `device` than the CPU the scan is made there, on
        a copy of the blocks that it keeps.
        """
        if per_generator < 1:
            raise ConfigError(f"per_generator is {per_generator}; it must be at least 1")
        search = self._search(blocks)
        mapped = {name: self._vectors.block(name, len(search.weights)) for name in search.columns}
        found = list(search(mapped, queries, per_generator, rows, device))
        chosen = np.unique(np.array([row for of_query in found for row, _ in of_query], np.int64))
        entries: dict[int, StoredEntry] = {}
        for start in range(0, len(chosen), _CHUNK):
            records, _ = self._checked(chosen[start : start + _CHUNK])
            entries |= {row: record.readable() for row, record in records.items()}
        return [nearest.by_generator(of_query, entries) for of_query in found]

    def picture(self, entry: Entry) -> Pixels | None:
        """The pixels (H, W, 3) of a resynthesis, None if they were not kept; BundleError if they are damaged."""
        return pictures.read(self.folder, entry.picture_sha256) if entry.origin else None

    def resynthesis(self, origin: ResynthesisKey) -> tuple[StoredEntry, Pixels] | None:
        """As `lookup`, with the pixels; None too where they were not kept, or are damaged and set aside: make it again."""
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
        """Freeze what is in any of `groups`, or exactly the entries `keys` (a fit's); BundleError if one of those is gone."""
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
        """Keep what was fitted on a snapshot; gives its hash. `settings` is JSON."""
        return fits.write(self.folder, snapshot.sha256, snapshot.keys, arrays, settings)

    def read_fit(self, sha256: str) -> StoredFit:
        """A fit by its hash; BundleError if it is missing or its bytes are others."""
        return fits.read(self.folder, sha256)

    def fits(self) -> list[str]:
        """Hashes of all fits, the newest first."""
        return fits.names(self.folder)

    def summary(self) -> list[dict[str, Any]]:
        """Generator, entries, prompts and resyntheses among them, by generator."""
        fields = ("generator", "entries", "prompts", "resyntheses")
        return [dict(zip(fields, row, strict=True)) for row in self._index.summary()]

    def groups(self) -> dict[str, int]:
        """Entries by group."""
        return self._index.groups()

    def verify(self) -> list[Damage]:
        """Read everything and name what is damaged; BundleError if the index itself is broken. Others may write meanwhile."""
        if faults := self._index.check():
            raise BundleError(f"{self._index.path} is broken ({'; '.join(faults)[:300]}); restore it from a copy")
        found: list[Damage] = []
        for records in self._chunks():
            found += self._damage(records)
        return found

    def prune(self, rows: Iterable[int] | None = None) -> list[Damage]:
        """Move what `verify` finds damaged (among `rows`, where given) into quarantine, so that nothing finds it; gives it.

        What was said of an entry is kept beside the reason; its row is never used again, its key may be added anew.
        """
        with self._writing():
            damaged = self.verify() if rows is None else self._damage(list(self._index.by_row(rows).values()))
            for one in damaged:
                self._index.quarantine(one.row, one.reason, _now())
        self._facts = None
        return damaged

    def _checked(self, rows: npt.NDArray[np.int64]) -> tuple[dict[int, Record], npt.NDArray[Any]]:
        """Records and stored vectors (n, d) of entries; BundleError if one is damaged or not there."""
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
        facts, known = self._current(), self._searches.get(tuple(blocks))
        if known is None or known.facts is not facts:
            known = self._searches[tuple(blocks)] = Search.of(self.layout, blocks, facts)
        return known

    def _current(self) -> Facts:
        self._facts = self._index.facts(len(self.layout.blocks), self._vectors.available, self._facts)
        return self._facts

    def _chunks(self) -> Iterator[list[Record]]:
        row = -1
        while records := self._index.after(row, _CHUNK):
            yield records
            row = records[-1].row

    def _damage(self, records: Sequence[Record]) -> list[Damage]:
        """Those of `records` that are damaged."""
        available = self._vectors.available()
        there = [record for record in records if 0 <= record.row < available]
        values = self._vectors.read(np.array([record.row for record in there], np.int64))
        norms = self.layout.norms(values)
        found = {record.row: record.damage(value, norm) for record, value, norm in zip(there, values, norms, strict=True)}
        return [
            Damage(record.row, record.entry.generator if isinstance(record.entry, StoredEntry) else None, record.key.hex(), reason)
            for record in records
            if (reason := found.get(record.row, "its vector is missing: a file was cut short"))
        ]

    def _keep(self, entry: Entry, pixels: Pixels) -> None:
        if entry.origin is None:
            raise ConfigError(f"pixels of {entry.picture_sha256[:12]}… are given, but it is no resynthesis; give None for it")
        if pixels_sha256(pixels) != entry.picture_sha256:
            raise ConfigError(f"picture_sha256 {entry.picture_sha256[:12]}… is not that of the pixels; use pixels_sha256")
        pictures.write(self.folder, entry.picture_sha256, pixels)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with _locked(self.folder), self._index.transaction():
            yield


def _refuse_strangers(folder: Path) -> None:
    """A folder in use for something else must not be filled, nor may a damaged gallery be begun anew over its vectors."""
    own = (LOCK, "vectors", "index.sqlite", layout.SCALING)  # what an interrupted creation may leave, beside temporary files
    strangers = [path.name for path in folder.iterdir() if not path.name.startswith(own) and path.suffix != ".part"]
    vectors = [path for path in (folder / "vectors").glob("*") if path.stat().st_size]
    if (strangers or vectors) and not (folder / layout.MANIFEST).exists():  # asked last: another process may just have begun it
        raise ConfigError(
            f"{folder} holds {(strangers or [vectors[0].name])[0]!r} but no {layout.MANIFEST}; name an empty folder, or restore that file"
        )


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    lock = FileLock(folder / LOCK, timeout=LOCK_WAIT_S, poll_interval=_POLL_S)
    with files.write_errors(folder):
        try:
            lock.acquire()
        except Timeout as error:
            raise DeviceError(
                f"{folder} has been written by another process for {LOCK_WAIT_S:.0f} s; try again when it has ended"
            ) from error
    try:
        yield
    finally:
        lock.release()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
