"""Atomic, durable files: a reader finds the old content, the new content or no file, also after a crash or a power cut.

Also arrays as bytes (only this module writes and reads the safetensors format from NumPy), and the three folders of the user that
files are kept in: everything else is written where the user says.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt
import platformdirs
from safetensors import SafetensorError
from safetensors.numpy import load, save

from .errors import ConfigError, DeviceError, ResynthError

Arrays = Mapping[str, npt.NDArray[Any]]
_APPLICATION = "resynth-fast"


def user_cache() -> Path:
    """What can be made again: features, pictures of images APIs, measured costs, plans. May be deleted at any time."""
    return Path(platformdirs.user_cache_dir(_APPLICATION))


def user_data() -> Path:
    """What cannot be made again: galleries that were given no folder."""
    return Path(platformdirs.user_data_dir(_APPLICATION))


def user_config() -> Path:
    """The user's settings; only read."""
    return Path(platformdirs.user_config_dir(_APPLICATION))


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A new file that replaces `path` when the block ends, and is removed if the block raises.

    The file and its name are on the disk when this returns. Raises OSError; wrap it in `write_errors`.
    """
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.part")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def write(path: Path, content: bytes) -> None:
    """Replace `path` by `content`, see `replacing`."""
    with replacing(path) as file:
        file.write(content)


def write_output(name: str, path: Path, text: str) -> None:
    """Write a result to a file that a user named. A symbolic link stays, its target is replaced.

    `name`: the file as a message calls it. ConfigError if it cannot be written or is a folder, a device or a pipe.
    """
    with write_errors(name, ConfigError, "name a file in a folder that can be written"):
        target = path.resolve()
        if target.exists() and not target.is_file():
            raise ConfigError(f"{name} is not a regular file; name a file")
        write(target, text.encode())


@contextmanager
def write_errors(
    name: object, error_class: type[ResynthError] = DeviceError, remedy: str = "free space, or choose another folder"
) -> Iterator[None]:
    """An OSError inside (disk full, read-only, permission) becomes an `error_class` that names `name` and the remedy."""
    try:
        yield
    except OSError as error:
        raise error_class(f"{name} cannot be written ({error.strerror or error}); {remedy}") from error


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def pack_arrays(arrays: Arrays, metadata: Mapping[str, str] | None = None) -> bytes:
    """The bytes of `arrays` by name, of any memory layout and byte order, and of `metadata`.

    safetensors writes the memory of an array as if its rows stood one after the other, without a look at its strides: a
    transposed array would come back as other numbers. So it gets a copy in that order.
    """
    contiguous = {name: np.ascontiguousarray(array).reshape(array.shape) for name, array in arrays.items()}  # a scalar stays one
    return save(contiguous, metadata=dict(metadata) if metadata else None)


def unpack_arrays(content: bytes) -> dict[str, npt.NDArray[Any]]:
    """The arrays in `content`. ValueError if it is no safetensors file, or holds a type that NumPy lacks."""
    try:
        return load(content)
    except (SafetensorError, KeyError) as error:
        raise ValueError(f"no safetensors file that NumPy can read ({error})") from error
