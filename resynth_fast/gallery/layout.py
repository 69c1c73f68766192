"""The manifest of a gallery: the extractor whose features it holds, and how they are stored."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from .. import files
from ..errors import BundleError, ConfigError
from ..extractors.space import FeatureSpace
from ..types import Doubles, Floats

SCHEMA_VERSION = 1
MANIFEST = "gallery.json"
SCALING = "scaling.safetensors"
MAX_MANIFEST_BYTES = 1 << 20
MAX_BLOCKS = 64
MAX_COLUMNS = 1 << 20

Storage = Literal["float32", "float16"]
_BLOCK = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Layout:
    """The columns of one extractor, by block. ConfigError if a field is invalid.

    `mean` and `scale` (d,) are the extractor's and only used to find neighbours: features are stored unscaled.
    float16 halves the folder but rounds: a feature that is read back differs from the one just extracted. It suits added
    pictures, not a cache of resyntheses that verdicts reuse.
    """

    name: str
    sha256: str
    """Hash of the extractor's bundle."""
    blocks: Mapping[str, int]
    """Name → number of columns, in the order of the columns; each block is one file."""
    mean: Doubles
    scale: Doubles
    storage: Storage = "float32"

    def __post_init__(self) -> None:
        if not _SHA256.fullmatch(self.sha256):
            raise ConfigError(f"the extractor's sha256 is {self.sha256[:80]!r}; it must be 64 hexadecimal digits")
        if not 1 <= len(self.blocks) <= MAX_BLOCKS:
            raise ConfigError(f"the extractor has {len(self.blocks)} blocks; a gallery takes 1 to {MAX_BLOCKS}")
        for name, columns in self.blocks.items():
            if not _BLOCK.fullmatch(name):
                raise ConfigError(f"block {name[:80]!r} is not a name; it must be letters, digits, '.', '_' or '-'")
            if isinstance(columns, bool) or not isinstance(columns, int) or not 1 <= columns <= MAX_COLUMNS:
                raise ConfigError(f"block {name} has {columns!r} columns; it must be 1 to {MAX_COLUMNS}")
        if self.storage not in get_args(Storage):
            raise ConfigError(f"storage is {self.storage!r}; it must be {' or '.join(get_args(Storage))}")
        for field, values in (("mean", self.mean), ("scale", self.scale)):
            if values.shape != (self.dimension,) or not np.isfinite(values).all():
                raise ConfigError(f"the extractor's {field} has shape {values.shape}; it must be ({self.dimension},), all finite")
        if not (self.scale > 0).all():
            raise ConfigError(
                f"the extractor's scale is {self.scale.min():g} in a column; it must be above 0 in all; export the extractor again"
            )

    @classmethod
    def of(cls, space: FeatureSpace, storage: Storage = "float32") -> Layout:
        """The layout of the features of `space`."""
        return cls(
            name=space.name,
            sha256=space.sha256,
            blocks=dict(space.extractor.block_sizes),
            mean=space.constants.mean,
            scale=space.constants.scale,
            storage=storage,
        )

    @property
    def dimension(self) -> int:
        """Number of columns of all blocks together."""
        return sum(self.blocks.values())

    @property
    def dtype(self) -> np.dtype[Any]:
        """Stored type, little-endian."""
        return np.dtype(self.storage).newbyteorder("<")

    def columns(self) -> Iterator[tuple[str, slice]]:
        """Each block with its columns in a vector."""
        start = 0
        for name, size in self.blocks.items():
            yield name, slice(start, start + size)
            start += size

    def column_of(self, names: Sequence[str]) -> dict[str, slice]:
        """The named blocks with their columns; ConfigError if there is no such block."""
        columns = dict(self.columns())
        if not names or (missing := [name for name in names if name not in columns]):
            raise ConfigError(
                f"no block {missing[0]!r}; this gallery has {', '.join(columns)}" if names else "blocks is empty; name at least one block"
            )
        return {name: columns[name] for name in names}

    def stored(self, features: Floats) -> npt.NDArray[Any]:
        """(n, d) in the gallery's precision; ConfigError if the shape is wrong or a value is not finite."""
        if features.ndim != 2 or features.shape[1] != self.dimension:
            raise ConfigError(f"features have shape {features.shape}; this gallery of {self.name} takes (n, {self.dimension})")
        with np.errstate(over="ignore"):
            values = np.ascontiguousarray(features, self.dtype)
        if not np.isfinite(values).all():
            raise ConfigError(f"a feature is not finite as {self.storage}; use storage float32, or extract the features again")
        return values

    def norms(self, features: npt.NDArray[Any]) -> Floats:
        """(n, d) features → (n, blocks): length of each block after scaling."""
        scaled = (features.astype(np.float64) - self.mean) / self.scale
        return np.stack([np.sqrt((scaled[:, block] ** 2).sum(1)) for _, block in self.columns()], axis=1).astype(np.float32)


def default_folder(name: str, sha256: str) -> Path:
    """Default folder of the gallery of an extractor, in the user's data."""
    return files.user_data() / "galleries" / f"{name}-{sha256[:12]}"


def write(folder: Path, layout: Layout) -> None:
    """Write the scaling, then the manifest: a folder is a gallery as soon as it has a manifest."""
    scaling = files.pack_arrays({"mean": layout.mean.astype(np.float64), "scale": layout.scale.astype(np.float64)})
    manifest = {
        "schema_version": SCHEMA_VERSION,
        "extractor": {"name": layout.name, "sha256": layout.sha256},
        "blocks": [{"name": name, "columns": columns} for name, columns in layout.blocks.items()],
        "storage": layout.storage,
        "scaling_sha256": hashlib.sha256(scaling).hexdigest(),
    }
    with files.write_errors(folder):
        files.write(folder / SCALING, scaling)
        files.write(folder / MANIFEST, json.dumps(manifest, indent=1).encode() + b"\n")


def read(folder: Path) -> Layout:
    """The layout of the gallery in `folder`; BundleError if there is none, or if it cannot be read."""
    path = folder / MANIFEST
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_MANIFEST_BYTES + 1)
        if len(content) > MAX_MANIFEST_BYTES:
            raise ValueError(f"it has more than {MAX_MANIFEST_BYTES} bytes")
        manifest = json.loads(content)
    except OSError as error:
        raise BundleError(
            f"no gallery at {folder}: cannot read {MANIFEST} ({error.strerror}); "
            "name a gallery's folder, or create one with `resynth gallery add`"
        ) from error
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{path} cannot be read ({error}); restore it from a copy") from error
    version = manifest.get("schema_version") if isinstance(manifest, dict) else None
    if version != SCHEMA_VERSION:
        raise BundleError(f"{path}: schema_version is {version!r}, this runtime reads {SCHEMA_VERSION}; use the resynth-fast that wrote it")
    try:
        mean, scale = _scaling(folder / SCALING, manifest["scaling_sha256"])
        return Layout(
            name=str(manifest["extractor"]["name"]),
            sha256=str(manifest["extractor"]["sha256"]),
            blocks={str(block["name"]): block["columns"] for block in manifest["blocks"]},
            mean=mean,
            scale=scale,
            storage=manifest["storage"],
        )
    except (KeyError, TypeError, ConfigError) as error:
        raise BundleError(f"{path} is broken ({error}); restore it from a copy") from error


def _scaling(path: Path, sha256: str) -> tuple[Doubles, Doubles]:
    try:
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != sha256:
            raise BundleError(f"{path} was changed or cut short; restore it from a copy")
        arrays = files.unpack_arrays(content)
        return arrays["mean"].astype(np.float64), arrays["scale"].astype(np.float64)
    except (OSError, KeyError, ValueError) as error:
        raise BundleError(f"{path} cannot be read ({error}); restore it from a copy") from error
