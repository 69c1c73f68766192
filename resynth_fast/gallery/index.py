"""The SQLite index: the rows that exist and the record of each. A row that it does not name does not exist."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import files
from ..errors import BundleError, DeviceError
from ..images import copies
from ..types import Floats, Integers
from .entry import Entry, StoredEntry, origin_from_json, origin_to_json

FILE = "index.sqlite"
VERSION = 1
_APPLICATION = 0x7273796E  # "rsyn", to tell an index from the database of another program
_WAIT_S = 60

_TABLES = """
CREATE TABLE generator (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE entry (
    row INTEGER PRIMARY KEY CHECK (row BETWEEN 0 AND 0x7fffffff),
    key BLOB NOT NULL UNIQUE CHECK (length(key) = 32),
    generator INTEGER NOT NULL REFERENCES generator (id),
    prompt TEXT,
    origin TEXT,
    picture TEXT NOT NULL,
    added TEXT NOT NULL,
    checksum BLOB NOT NULL CHECK (length(checksum) = 32),
    norms BLOB NOT NULL
);
CREATE INDEX entry_generator ON entry (generator, prompt);
CREATE INDEX entry_picture ON entry (picture);
CREATE TABLE membership (row INTEGER NOT NULL, label TEXT NOT NULL, PRIMARY KEY (row, label)) WITHOUT ROWID;
CREATE TABLE quarantine (row INTEGER PRIMARY KEY, record TEXT NOT NULL, reason TEXT NOT NULL, at TEXT NOT NULL);
"""
_SIGNATURES = f"""
CREATE TABLE IF NOT EXISTS signature (
    row INTEGER PRIMARY KEY,
    version INTEGER NOT NULL,
    content BLOB NOT NULL CHECK (version != {copies.VERSION} OR length(content) = {copies.SIGNATURE_BYTES})
)
"""
# A table of its own, created by the first writer that has signatures: an older index gets it where it is, without a new version of
# what it holds, and an index on a read-only disk has none.
_ENTRY = """
SELECT e.row, g.name, e.prompt, e.origin, e.picture, e.added, e.key, e.checksum, e.norms
FROM entry e JOIN generator g ON g.id = e.generator
"""
_IN_ROWS = "e.row IN (SELECT value FROM json_each(?))"


@dataclass(frozen=True, slots=True)
class Record:
    """An entry with its checksums. `entry` is a `BundleError` if the record itself is damaged."""

    row: int
    entry: StoredEntry | BundleError
    key: bytes
    checksum: bytes
    norms: bytes

    def readable(self) -> StoredEntry:
        """The entry; BundleError if it is damaged."""
        if isinstance(self.entry, StoredEntry):
            return self.entry
        raise self.entry

    def damage(self, vector: npt.NDArray[Any], norms: Floats | None = None) -> str | None:
        """How the record disagrees with its stored `vector` (d,), or with `norms` computed again; None if it does not."""
        if not isinstance(self.entry, StoredEntry):
            return str(self.entry)
        if self.entry.checksum(vector.data) != self.checksum:
            return "the checksum of its record and vector is wrong"
        if self.entry.key != self.key:
            return "its key does not match its record"
        if norms is not None:
            stored = np.frombuffer(self.norms, "<f4") if len(self.norms) == norms.nbytes else None
            if stored is None or not np.allclose(stored, norms, rtol=1e-4, atol=1e-6):
                return "its norms do not match its vector"
        return None


@dataclass(frozen=True, slots=True, eq=False)
class Facts:
    """Generator and norms of all rows, for searches; a row without an entry has generator -1."""

    generator: Integers
    """(rows,), keys of `names`"""
    norms: Floats
    """(rows, blocks)"""
    names: Mapping[int, str]
    state: tuple[int, int]
    """(rows ever used, rows in quarantine): the facts are valid as long as these two do not change."""


class Index:
    """One connection, shared by the threads of a process; a forked process must open its own."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._lock = threading.RLock()
        try:
            # mode=rw: a missing index is an error; it must not be created empty
            self._connection = sqlite3.connect(
                f"{self.path.absolute().as_uri()}?mode=rw", uri=True, timeout=_WAIT_S, isolation_level=None, check_same_thread=False
            )
        except sqlite3.Error as error:
            raise self._broken(error) from error
        try:
            for pragma in ("trusted_schema = OFF", "cell_size_check = ON", "synchronous = FULL", "mmap_size = 0"):
                self.run(f"PRAGMA {pragma}")
            identity = self.one("PRAGMA application_id")[0], self.one("PRAGMA user_version")[0]
            if identity != (_APPLICATION, VERSION):
                raise BundleError(f"{self.path} is not a gallery index of version {VERSION} (it is {identity}); restore it from a copy")
        except BaseException:
            self.close()
            raise

    @classmethod
    def create(cls, folder: Path) -> None:
        """Create an empty index; leftovers of an interrupted creation are replaced."""
        path = folder / FILE
        with files.write_errors(path):
            for leftover in (path, path.with_name(f"{FILE}-wal"), path.with_name(f"{FILE}-shm")):
                leftover.unlink(missing_ok=True)
        try:
            with closing(sqlite3.connect(path, isolation_level=None)) as connection:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.executescript(
                    f"BEGIN; PRAGMA application_id = {_APPLICATION}; PRAGMA user_version = {VERSION}; {_TABLES} {_SIGNATURES}; COMMIT;"
                )
        except sqlite3.Error as error:
            raise DeviceError(f"{path} cannot be written ({error}); free space, or choose another folder") from error

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All writes inside the block, or none of them; other writers wait until it ends."""
        with self._lock:
            self.run("BEGIN IMMEDIATE")
            try:
                yield
                self.run("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.rollback()
                raise

    def run(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of one statement; BundleError where SQLite finds the file broken or cannot use it."""
        with self._lock:
            try:
                return self._connection.execute(sql, values).fetchall()
            except (sqlite3.Error, UnicodeDecodeError) as error:
                raise self._broken(error) from error

    def one(self, sql: str, values: Sequence[Any] = ()) -> tuple[Any, ...]:
        return self.run(sql, values)[0]

    # Reading

    def next_row(self) -> int:
        """The first row never used, also not by an entry that is now in quarantine."""
        return int(
            self.one("SELECT 1 + max(coalesce((SELECT max(row) FROM entry), -1), coalesce((SELECT max(row) FROM quarantine), -1))")[0]
        )

    def count(self) -> int:
        return int(self.one("SELECT count(*) FROM entry")[0])

    def by_key(self, keys: Iterable[bytes]) -> dict[bytes, Record]:
        """Records by key, of the `keys` that exist."""
        matches = ((key, self.run(f"{_ENTRY} WHERE e.key = ?", (key,))) for key in keys)
        return {key: self._record(rows[0]) for key, rows in matches if rows}

    def by_row(self, rows: Iterable[int]) -> dict[int, Record]:
        """Records by row, of the `rows` that exist."""
        return {row[0]: self._record(row) for row in self.run(f"{_ENTRY} WHERE {_IN_ROWS}", (_list(rows),))}

    def after(self, row: int, limit: int) -> list[Record]:
        """The next `limit` entries after `row`, in order: a walk over all that holds no lock."""
        return [self._record(columns) for columns in self.run(f"{_ENTRY} WHERE e.row > ? ORDER BY e.row LIMIT ?", (row, limit))]

    def select(self, generator: str | None, prompt: str | None, group: str | None, picture: str | None) -> list[Record]:
        """Entries that match all arguments that are not None, in the order of their rows."""
        conditions, values = ["1"], []
        for sql, value in (
            ("g.name = ?", generator),
            ("e.prompt = ?", prompt),
            ("e.picture = ?", picture),
            ("e.row IN (SELECT row FROM membership WHERE label = ?)", group),
        ):
            if value is not None:
                conditions.append(sql)
                values.append(value)
        return [self._record(row) for row in self.run(f"{_ENTRY} WHERE {' AND '.join(conditions)} ORDER BY e.row", values)]

    def given(self) -> list[tuple[int, str, str, bytes]]:
        """(row, generator, SHA-256 of the file, signature) of every added picture; the signature is empty if it has none."""
        tables = self.run("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'signature'")
        stored = dict(self.run("SELECT row, content FROM signature WHERE version = ?", (copies.VERSION,))) if tables else {}
        rows = self.run("SELECT e.row, g.name, e.picture FROM entry e JOIN generator g ON g.id = e.generator WHERE e.origin IS NULL")
        return [(row, generator, picture, bytes(stored.get(row, b""))) for row, generator, picture in rows]

    def members(self, groups: Sequence[str] | None) -> list[tuple[int, bytes, bytes, str, str | None]]:
        """(row, key, checksum, generator, prompt) of all entries in any of `groups` (None: of all), ordered by key."""
        return self.run(
            "SELECT e.row, e.key, e.checksum, g.name, e.prompt FROM entry e JOIN generator g ON g.id = e.generator WHERE ?1 IS NULL"
            " OR e.row IN (SELECT row FROM membership WHERE label IN (SELECT value FROM json_each(?1))) ORDER BY e.key",
            (None if groups is None else json.dumps(list(groups)),),
        )

    def summary(self) -> list[tuple[str, int, int, int]]:
        """(generator, entries, distinct prompts, resyntheses among them), by name."""
        return self.run(
            "SELECT g.name, count(*), count(DISTINCT e.prompt), count(e.origin) FROM entry e JOIN generator g ON g.id = e.generator"
            " GROUP BY g.id ORDER BY g.name"
        )

    def groups(self) -> dict[str, int]:
        """Entries by group."""
        return dict(self.run("SELECT label, count(*) FROM membership GROUP BY label ORDER BY label"))

    def state(self) -> tuple[int, int]:
        """See `Facts.state`."""
        return self.next_row(), int(self.one("SELECT count(*) FROM quarantine")[0])

    def facts(self, blocks: int, available: Callable[[], int], previous: Facts | None) -> Facts:
        """The present facts. Only rows that `previous` lacks are read.

        `available` is called afterwards; it returns the number of rows in the vector files.
        """
        with self._lock:
            state = self.state()
            if previous is not None and previous.state == state:
                return previous
            if previous is None or previous.state[1] != state[1]:
                previous = Facts(np.empty(0, np.int64), np.empty((0, blocks), np.float32), {}, (0, state[1]))
            added = self.run("SELECT row, generator, norms FROM entry WHERE row >= ?", (previous.state[0],))
            names = dict(self.run("SELECT id, name FROM generator"))
        rows = np.array([row for row, _, _ in added], np.int64)
        content = b"".join(norms for _, _, norms in added)
        if len(content) != 4 * blocks * len(rows) or (rows < 0).any() or (rows >= available()).any():
            raise BundleError(f"{self.path} and the vector files disagree; run `resynth gallery prune`")
        # only up to the last entry: the vector files may end behind it
        end = max(len(previous.generator), int(rows.max(initial=-1)) + 1)
        generator, norms = np.full(end, -1, np.int64), np.zeros((end, blocks), np.float32)
        generator[: len(previous.generator)], norms[: len(previous.norms)] = previous.generator, previous.norms
        generator[rows], norms[rows] = [g for _, g, _ in added], np.frombuffer(content, "<f4").reshape(-1, blocks)
        return Facts(generator, norms, names, state)

    def check(self) -> list[str]:
        """The faults that SQLite finds in the file."""
        return [text for (text,) in self.run("PRAGMA integrity_check(10)") if text != "ok"]

    # Writing, inside a transaction

    def insert(self, row: int, entry: Entry, checksum: bytes, norms: bytes, added: str) -> None:
        self.run("INSERT OR IGNORE INTO generator (name) VALUES (?)", (entry.generator,))
        self.run(
            "INSERT INTO entry (row, key, generator, prompt, origin, picture, added, checksum, norms)"
            " VALUES (?, ?, (SELECT id FROM generator WHERE name = ?), ?, ?, ?, ?, ?, ?)",
            (row, entry.key, entry.generator, entry.prompt, origin_to_json(entry.origin), entry.picture_sha256, added, checksum, norms),
        )

    def sign(self, signatures: Mapping[int, bytes]) -> None:
        """Store signatures by row; those of the present version stay."""
        if signatures:
            self.run(_SIGNATURES)
        for row, content in signatures.items():
            self.run(
                "INSERT INTO signature VALUES (?1, ?2, ?3) ON CONFLICT (row) DO UPDATE SET version = ?2, content = ?3 WHERE version != ?2",
                (row, copies.VERSION, content),
            )

    def join(self, rows: Iterable[int], group: str) -> None:
        """Put entries into a group; entries that are in it stay."""
        self.run("INSERT OR IGNORE INTO membership SELECT value, ? FROM json_each(?)", (group, _list(rows)))

    def set_prompt(self, row: int, prompt: str | None, checksum: bytes) -> None:
        """Change the prompt of an added picture, and with it the checksum over its record."""
        self.run("UPDATE entry SET prompt = ?, checksum = ? WHERE row = ?", (prompt, checksum, row))

    def quarantine(self, row: int, reason: str, at: str) -> None:
        """Remove an entry and keep its record in quarantine; its key can be added again under another row."""
        records = self.run(
            "SELECT hex(e.key), g.name, e.prompt, e.origin, e.picture, e.added FROM entry e LEFT JOIN generator g ON g.id = e.generator"
            " WHERE e.row = ?",
            (row,),
        )
        fields = ("key", "generator", "prompt", "origin", "picture", "added")
        record = {**dict(zip(fields, records[0], strict=True)), "groups": self.run("SELECT label FROM membership WHERE row = ?", (row,))}
        self.run("INSERT INTO quarantine VALUES (?, ?, ?, ?)", (row, json.dumps(record, default=repr), reason, at))
        self.run("DELETE FROM membership WHERE row = ?", (row,))
        self.run("DELETE FROM entry WHERE row = ?", (row,))

    def _record(self, columns: tuple[Any, ...]) -> Record:
        row, generator, prompt, origin, picture, added, key, checksum, norms = columns
        entry: StoredEntry | BundleError
        try:
            entry = StoredEntry(
                generator=generator,
                picture_sha256=picture,
                prompt=prompt,
                origin=origin_from_json(origin, prompt),
                row=row,
                added=added,
            )
        except Exception as error:  # a damaged page may hold anything, of any type
            entry = BundleError(f"the entry of row {row} in {self.path} cannot be read ({error}); run `resynth gallery prune`")
        return Record(row, entry, bytes(key), bytes(checksum), bytes(norms))

    def _broken(self, error: Exception) -> BundleError | DeviceError:
        if getattr(error, "sqlite_errorcode", None) in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY):
            return DeviceError(f"{self.path} cannot be written ({error}); free space, or wait for the other process")
        return BundleError(f"{self.path} cannot be used ({error}); make its folder writable, or restore it from a copy")


def _list(rows: Iterable[int]) -> str:
    return json.dumps([int(row) for row in rows])
