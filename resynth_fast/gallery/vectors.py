"""The vector files: rows of fixed width, one file per block, written at given positions and memory-mapped for reading."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import files
from ..errors import BundleError
from ..types import Integers
from .layout import Layout

FOLDER = "vectors"
_SUFFIX = {"float32": "f32", "float16": "f16"}


class Vectors:
    """Features of row i at position i of every block's file. Which rows are entries is known only to the index."""

    def __init__(self, folder: Path, layout: Layout) -> None:
        self._layout = layout
        self._folder = folder / FOLDER
        self._paths = {name: self._folder / f"{name}.{_SUFFIX[layout.storage]}" for name in layout.blocks}
        self._maps: dict[str, npt.NDArray[Any]] = {}
        self._lock = threading.Lock()

    def create(self) -> None:
        """Create empty files; leftovers of an interrupted creation are emptied."""
        with files.write_errors(self._folder):
            self._folder.mkdir(exist_ok=True)
            for path in self._paths.values():
                path.write_bytes(b"")
            files.sync_folder(self._folder)

    def available(self) -> int:
        """Number of complete rows in the shortest file; BundleError if a file is missing."""
        return min(self._rows(name) for name in self._paths)

    def end(self) -> int:
        """The first row of which no byte was ever written. Only the process that holds the write lock may call this.

        Rows of a killed writer behind the last entry are not overwritten, although no entry names them yet: its commit may
        be complete in SQLite's log, and then the next recovery of the log adds the entries.
        """
        return max(-(-self._size(name) // self._width(name)) for name in self._paths)

    def write(self, row: int, values: npt.NDArray[Any]) -> None:
        """Write vectors (n, d) from position `row` on; they are on the disk when this returns."""
        with files.write_errors(self._folder):
            for name, block in self._layout.columns():
                descriptor = os.open(self._paths[name], os.O_WRONLY | os.O_CLOEXEC)
                try:
                    start = row * self._width(name)
                    _write_all(descriptor, np.ascontiguousarray(values[:, block]).tobytes(), start)
                    os.fdatasync(descriptor)
                finally:
                    os.close(descriptor)

    def block(self, name: str, rows: int) -> npt.NDArray[Any]:
        """The first `rows` rows of one block, (rows, columns), memory-mapped and read-only; BundleError if the file is shorter."""
        if rows == 0:
            return np.empty((0, self._layout.blocks[name]), self._layout.dtype)
        available = self._rows(name)  # checked each time: touching a page behind the end of its file kills the process
        if available < rows:
            raise BundleError(f"{self._paths[name]} was cut short: {available} of {rows} rows are left; run `resynth gallery prune`")
        with self._lock:
            mapped = self._maps.get(name)
            if mapped is None or len(mapped) < rows:
                shape = available, self._layout.blocks[name]
                mapped = self._maps[name] = np.asarray(np.memmap(self._paths[name], self._layout.dtype, "r", shape=shape))
            return mapped[:rows]

    def read(self, rows: Integers) -> npt.NDArray[Any]:
        """Vectors (n, d) in the stored precision, without checks; BundleError if a row is beyond the end of a file."""
        values = np.empty((len(rows), self._layout.dimension), self._layout.dtype)
        end = int(rows.max()) + 1 if len(rows) else 0
        for name, block in self._layout.columns():
            values[:, block] = self.block(name, end)[rows]
        return values

    def _rows(self, name: str) -> int:
        return self._size(name) // self._width(name)

    def _size(self, name: str) -> int:
        try:
            return self._paths[name].stat().st_size
        except OSError as error:
            raise BundleError(f"{self._paths[name]} is missing ({error.strerror}); restore it from a copy of the gallery") from error

    def _width(self, name: str) -> int:
        return self._layout.blocks[name] * self._layout.dtype.itemsize


def _write_all(descriptor: int, content: bytes, start: int) -> None:
    view = memoryview(content)
    while view:
        written = os.pwrite(descriptor, view, start)
        view, start = view[written:], start + written
