"""Files that are there completely or not at all, whatever happens while they are written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from ..errors import DeviceError


@contextmanager
def writing(what: Path) -> Iterator[None]:
    """An OSError inside (disk full, read-only, permission) becomes a DeviceError that names `what`."""
    try:
        yield
    except OSError as error:
        raise DeviceError(f"{what} cannot be written ({error.strerror or error}); free space, or choose another folder") from error


def write_atomically(path: Path, content: bytes) -> None:
    """Write `path` so that a reader, also after a crash, finds nothing, what was there before, or all of `content`."""
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.part")
    with writing(path):
        try:
            with open(temporary, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` outlast a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
