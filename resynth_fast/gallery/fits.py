"""Statistics fitted on a frozen snapshot: one safetensors file named by the hash of its bytes, written once."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import files
from ..errors import BundleError, ConfigError

FOLDER = "fits"
_KEYS = "snapshot.keys"
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, eq=False)
class StoredFit:
    """Arrays and settings of a fit, and the entries it was fitted on."""

    sha256: str
    snapshot_sha256: str
    keys: tuple[bytes, ...]
    """Keys of the snapshot's entries; `Gallery.snapshot(keys=…)` restores the snapshot."""
    arrays: Mapping[str, npt.NDArray[Any]]
    settings: Mapping[str, Any]


def write(
    folder: Path, snapshot_sha256: str, keys: tuple[bytes, ...], arrays: Mapping[str, npt.NDArray[Any]], settings: Mapping[str, Any]
) -> str:
    """Store a fit and return its hash. `settings` is JSON; equal arguments give an equal file. ConfigError, DeviceError."""
    if _KEYS in arrays:
        raise ConfigError(f"an array of a fit is called {_KEYS!r}, which is reserved; rename it")
    members = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 32)
    # a single metadata entry: the order of several is not fixed, and would change the hash
    about = json.dumps({"snapshot": snapshot_sha256, "settings": dict(settings)}, sort_keys=True)
    content = files.pack_arrays({_KEYS: members, **arrays}, {"fit": about})
    sha256 = hashlib.sha256(content).hexdigest()
    with files.write_errors(folder / FOLDER):
        (folder / FOLDER).mkdir(exist_ok=True)
        files.write(path_of(folder, sha256), content)
    return sha256


def read(folder: Path, sha256: str) -> StoredFit:
    """The fit named `sha256`; BundleError if it is missing or was changed."""
    path = path_of(folder, sha256)
    try:
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != sha256:
            raise BundleError(f"{path} was changed or cut short; fit again with `resynth gallery fit`")
        arrays = files.unpack_arrays(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        about = json.loads(header["__metadata__"]["fit"])
        keys = tuple(row.tobytes() for row in arrays.pop(_KEYS))
        return StoredFit(sha256, about["snapshot"], keys, arrays, about["settings"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise BundleError(f"{path} cannot be read ({error}); fit again with `resynth gallery fit`") from error


def names(folder: Path) -> list[str]:
    """Hashes of all fits, the newest first."""
    paths = [path for path in (folder / FOLDER).glob("*.safetensors") if _SHA256.fullmatch(path.stem)]
    return [path.stem for path in sorted(paths, key=lambda path: (-path.stat().st_mtime_ns, path.stem))]


def path_of(folder: Path, sha256: str) -> Path:
    """File of the fit named `sha256`; ConfigError if that is not a hash."""
    if not _SHA256.fullmatch(sha256):
        raise ConfigError(f"the name of the fit is {sha256[:80]!r}; it must be 64 hexadecimal digits")
    return folder / FOLDER / f"{sha256}.safetensors"
