"""The write lock of a gallery: writers take turns, readers need none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from .. import files
from ..errors import DeviceError

LOCK = "write.lock"
LOCK_WAIT_S = 120.0
_POLL_S = 0.005


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
