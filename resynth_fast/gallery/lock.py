"""The write lock of a gallery: writers take turns, readers need none; and what a folder may hold before it becomes a gallery."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from .. import files
from ..errors import ConfigError, DeviceError
from . import layout

LOCK = "write.lock"
LOCK_WAIT_S = 120.0
_POLL_S = 0.005


def refuse_other_files(folder: Path) -> None:
    """ConfigError if the folder is used for something else, or holds the vectors of a gallery that lost its manifest."""
    own = (LOCK, "vectors", "index.sqlite", layout.SCALING)  # leftovers of an interrupted creation, beside temporary files
    others = [path.name for path in folder.iterdir() if not path.name.startswith(own) and path.suffix != ".part"]
    vectors = [path for path in (folder / "vectors").glob("*") if path.stat().st_size]
    if (others or vectors) and not (folder / layout.MANIFEST).exists():  # checked last: another process may just have created it
        raise ConfigError(
            f"{folder} holds {(others or [vectors[0].name])[0]!r} but no {layout.MANIFEST}; name an empty folder, or restore that file"
        )


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the write lock of the gallery in `folder`; DeviceError if another process holds it for too long."""
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
