"""The bundle: the one contract between export and runtime (a folder with `bundle.json` and its files).

Everything that a candidate, an extractor or a captioner is made of is named in the manifest, with its SHA-256.
This is the only module that knows file names. A file stands in the bundle's own folder, or, where several
bundles share it, in the folder `objects` beside the bundles, under its hash.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from .errors import BundleError
from .onnx_model import OnnxModel

SCHEMA_VERSION = 1
MANIFEST = "bundle.json"
OBJECTS = "objects"
KINDS = ("generator", "captioner", "extractor")
SUFFIXES = (".onnx", ".json", ".safetensors")
DATA_SUFFIX = ".safetensors"
GUIDANCE = ("none", "batch-2", "rescaled", "embedded")
UNCONDITIONAL = ("empty", "zeros")
MAX_MANIFEST_BYTES = 16 << 20

_SHA256 = re.compile(r"[0-9a-f]{64}")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_verified: set[tuple[str, int, int, int, str]] = set()


@dataclass(frozen=True, slots=True)
class File:
    """A file of a bundle: `path` is resolved and contained, its content still unverified."""

    path: Path
    sha256: str

    def read(self) -> bytes:
        """The content; its hash is checked at the first reading, afterwards size, mtime and inode are."""
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise self._unreadable(error) from error
        self._verify(lambda: hashlib.sha256(content).hexdigest())
        return content

    def verified(self) -> Path:
        """The path of a file too large to be read at once; its hash is checked as by `read`."""
        try:
            with self.path.open("rb") as file:
                self._verify(lambda: hashlib.file_digest(file, "sha256").hexdigest())
        except OSError as error:
            raise self._unreadable(error) from error
        return self.path

    def _verify(self, digest: Callable[[], str]) -> None:
        stat = self.path.stat()
        key = (str(self.path), stat.st_size, stat.st_mtime_ns, stat.st_ino, self.sha256)
        if key not in _verified:
            found = digest()
            if found != self.sha256:
                raise BundleError(
                    f"{self.path} has SHA-256 {found[:12]}…, its manifest says {self.sha256[:12]}…: it was changed or cut short; export the bundle again"
                )
            _verified.add(key)

    def _unreadable(self, error: OSError) -> BundleError:
        return BundleError(f"cannot read {self.path}: {error.strerror}; export the bundle again")


@dataclass(frozen=True, slots=True)
class Tensor:
    """Shape and dtype of a graph's input or output; a string stands for a dimension that varies."""

    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class Component:
    """One network with fixed inputs and outputs; its graph's hash covers `data` too, the files of its large weights."""

    file: File
    precision: str
    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]
    data: tuple[File, ...] = ()
    flops: int = 0
    """Of one row: its matrix products, convolutions and attention; 0 where nobody counted."""

    @property
    def size_bytes(self) -> int:
        """What graph and data take on disk."""
        return sum(file.path.stat().st_size for file in (self.file, *self.data))

    def onnx_model(self) -> OnnxModel:
        """What a backend loads; every hash is checked."""
        return OnnxModel(self.file.read(), {file.path.name: file.verified() for file in self.data}, self.file.path)


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """`tokenizer.json` and what it does not say.

    A caption is put into small letters where `lowercase` says so, `prefix` comes before it (not before the empty one of
    guidance); texts are cut to `max_tokens`, the end token kept, then padded.
    """

    file: File
    max_tokens: int
    pad_id: int
    prefix: str = ""
    lowercase: bool = False


@dataclass(frozen=True, slots=True)
class StepRow:
    """One model call of a step table (see `sampling`)."""

    timestep: float
    input_scale: float
    samples: tuple[float, ...]
    outputs: tuple[float, ...]
    noise: float


@dataclass(frozen=True, slots=True)
class StepTable:
    """A sampler as data: how one noise scheduler walks at one step count and one resolution."""

    noise_scheduler: str
    init_noise_sigma: float
    rows: tuple[StepRow, ...]


@dataclass(frozen=True, slots=True)
class Guidance:
    """How the caption is stressed.

    `none`, `embedded`: one denoiser row a sample (embedded: the graph holds the scale); `batch-2`: a second row without
    a caption, m = u + scale (c − u); `rescaled`: the same, drawn back to the deviation of c by the share `rescale`.
    Without a caption means the `empty` one, or text states of `zeros`.
    """

    mode: str
    scale: float
    rescale: float = 0.0
    unconditional: str = "empty"

    @property
    def doubled(self) -> bool:
        """Whether the denoiser has two rows a sample."""
        return self.mode in ("batch-2", "rescaled")


class Bundle:
    """A verified manifest. `Bundle.open(folder)` refuses what it does not understand, by name."""

    def __init__(self, folder: Path, manifest: Mapping[str, Any]) -> None:
        self.folder = folder
        self.manifest = MappingProxyType(dict(manifest))
        version = manifest.get("schema_version")
        if version != SCHEMA_VERSION:
            raise BundleError(
                f"{folder}: bundle schema_version is {version!r}, this runtime reads {SCHEMA_VERSION}; export the bundle again"
            )
        self.kind = self._choice("kind", KINDS)
        self.name: str = self._get("name", str)
        if not NAME.fullmatch(self.name):
            raise BundleError(f"{folder}: name {self.name[:40]!r} is not letters, digits, '.', '_' or '-' (100 at most)")
        self.family: str = self._get("family", str)
        self.licence: str = self._get("licence", str)

    @classmethod
    def open(cls, folder: Path) -> Bundle:
        """Read `folder/bundle.json`; graphs and weights are read, and verified, when an engine asks for them."""
        path = folder / MANIFEST
        try:
            if path.stat().st_size > MAX_MANIFEST_BYTES:
                raise BundleError(f"{path}: {path.stat().st_size} bytes, a manifest has {MAX_MANIFEST_BYTES} at most")
            manifest = json.loads(path.read_bytes())
        except OSError as error:
            raise BundleError(
                f"no bundle at {folder}: cannot read {MANIFEST} ({error.strerror}); give a folder written by `resynth export`"
            ) from error
        except ValueError as error:
            raise BundleError(f"{path} is not JSON ({error}); export the bundle again") from error
        if not isinstance(manifest, dict):
            raise BundleError(f"{path} holds {type(manifest).__name__}, not an object; export the bundle again")
        bundle = cls(folder, manifest)
        bundle.files()  # a broken path is refused here, not in the middle of a run
        return bundle

    @cached_property
    def sha256(self) -> str:
        """Hash of the manifest, which names every file's hash: the bundle's identity, wherever it is stored."""
        return hashlib.sha256(json.dumps(dict(self.manifest), sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    @cached_property
    def components(self) -> Mapping[str, Component]:
        components = {}
        for name, entry in self._get("components", dict).items():
            where = f"components.{name}"
            components[name] = Component(
                file=self._file(entry, where),
                precision=_typed(entry, "precision", str, self.folder, where),
                inputs=self._tensors(entry, "inputs", where),
                outputs=self._tensors(entry, "outputs", where),
                data=self._data(entry, where),
                flops=_typed({"flops": 0, **entry}, "flops", int, self.folder, where),
            )
        return MappingProxyType(components)

    @cached_property
    def tokenizers(self) -> tuple[Tokenizer, ...]:
        """One for each `tokens_i` input of the text component, in order."""
        return tuple(
            Tokenizer(
                file=self._file(entry, f"tokenizers.{i}"),
                max_tokens=_typed(entry, "max_tokens", int, self.folder, f"tokenizers.{i}"),
                pad_id=_typed(entry, "pad_id", int, self.folder, f"tokenizers.{i}"),
                prefix=_typed({"prefix": ""} | entry, "prefix", str, self.folder, f"tokenizers.{i}"),
                lowercase=entry.get("lowercase") is True,
            )
            for i, entry in enumerate(self._get("tokenizers", list))
        )

    @cached_property
    def constants(self) -> File:
        """Fitted numbers (safetensors), for example an extractor's scaling."""
        return self._file(self._get("constants", dict), "constants")

    @cached_property
    def latents(self) -> tuple[int, int, int]:
        """(channels, height, width) of one sample."""
        entry = self._get("latents", dict)
        channels, height, width = (_typed(entry, key, int, self.folder, "latents") for key in ("channels", "height", "width"))
        return channels, height, width

    @cached_property
    def resolution_px(self) -> tuple[int, int]:
        """(height, width) of the pictures."""
        entry = self._get("resolution_px", dict)
        return _typed(entry, "height", int, self.folder, "resolution_px"), _typed(entry, "width", int, self.folder, "resolution_px")

    @cached_property
    def guidance(self) -> Guidance:
        entry = self._get("guidance", dict)
        mode = _typed(entry, "mode", str, self.folder, "guidance")
        if mode not in GUIDANCE:
            raise BundleError(f"{self.folder}: guidance.mode is {mode!r}, this runtime knows {', '.join(GUIDANCE)}; update resynth-fast")
        unconditional = entry.get("unconditional", "empty")
        if unconditional not in UNCONDITIONAL:
            raise BundleError(
                f"{self.folder}: guidance.unconditional is {unconditional!r}, this runtime knows {', '.join(UNCONDITIONAL)}; update resynth-fast"
            )
        scale, rescale = (_typed({"rescale": 0.0} | entry, key, (int, float), self.folder, "guidance") for key in ("scale", "rescale"))
        return Guidance(mode, float(scale), float(rescale), unconditional)

    @cached_property
    def lineage(self) -> Mapping[str, str]:
        """Hashes of the autoencoder, text encoders and denoiser weights: candidates with equal parts are relatives."""
        return MappingProxyType(dict(self._get("lineage", dict)))

    def step_table(self, steps: int) -> StepTable:
        """The table for `steps` denoising steps at the native resolution."""
        height, width = self.resolution_px
        tables = self._get("step_tables", dict).get(f"{height}x{width}", {})
        entry = tables.get(str(steps))
        if entry is None:
            raise BundleError(
                f"{self.name}: no step table for {steps} steps at {height}x{width}, the bundle has {', '.join(sorted(tables, key=int))}; choose one or export again"
            )
        where = f"step_tables.{height}x{width}.{steps}"
        try:
            rows = tuple(
                StepRow(
                    float(row["timestep"]),
                    float(row["input_scale"]),
                    tuple(map(float, row["samples"])),
                    tuple(map(float, row["outputs"])),
                    float(row["noise"]),
                )
                for row in entry["rows"]
            )
            return StepTable(str(entry["noise_scheduler"]), float(entry["init_noise_sigma"]), rows)
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(f"{self.folder}: {where} is broken ({error!r}); export the bundle again") from error

    def files(self) -> Iterator[File] | list[File]:
        """Every file that the manifest names, each path checked."""
        found = [file for component in self.components.values() for file in (component.file, *component.data)]
        if self.manifest.get("tokenizers"):
            found += [tokenizer.file for tokenizer in self.tokenizers]
        if self.manifest.get("constants"):
            found.append(self.constants)
        return found

    def verify(self) -> None:
        """Read and hash every file (`resynth candidates list --verify`)."""
        for file in self.files():
            file.verified()

    def get(self, field: str, expected: type) -> Any:
        """A field that only one kind of bundle has; missing or of another type is an error."""
        return self._get(field, expected)

    def _get(self, field: str, expected: type) -> Any:
        return _typed(self.manifest, field, expected, self.folder, "")

    def _choice(self, field: str, allowed: tuple[str, ...]) -> str:
        value: str = self._get(field, str)
        if value not in allowed:
            raise BundleError(f"{self.folder}: {field} is {value!r}, this runtime knows {', '.join(allowed)}; update resynth-fast")
        return value

    def _tensors(self, entry: Mapping[str, Any], field: str, where: str) -> Mapping[str, Tensor]:
        table = _typed(entry, field, dict, self.folder, where)
        return MappingProxyType({name: Tensor(str(t["dtype"]), tuple(t["shape"])) for name, t in table.items()})

    def _data(self, entry: Mapping[str, Any], where: str) -> tuple[File, ...]:
        """Files of weights: called by their hash, as the graph calls them, and beside it, where libraries look for them."""
        entries = _typed({"data": [], **entry}, "data", list, self.folder, where)
        files = tuple(self._file(item, f"{where}.data.{i}") for i, item in enumerate(entries))
        graph = self._file(entry, where)
        for i, file in enumerate(files):
            if file.path != graph.path.parent / f"{file.sha256}{DATA_SUFFIX}":
                raise BundleError(
                    f"{self.folder}: {where}.data.{i}.file is {file.path.name!r}; weights are called by their SHA-256, with {DATA_SUFFIX}, and stand beside their graph"
                )
        return files

    def _file(self, entry: Mapping[str, Any], where: str) -> File:
        """Resolve a named file inside the bundle, or by its hash among the objects beside it; nothing else."""
        name = _typed(entry, "file", str, self.folder, where)
        sha256 = _typed(entry, "sha256", str, self.folder, where)
        if not _SHA256.fullmatch(sha256):
            raise BundleError(f"{self.folder}: {where}.sha256 is {sha256[:80]!r}, not 64 hexadecimal digits")
        if Path(name).suffix not in SUFFIXES:
            raise BundleError(f"{self.folder}: {where}.file is {name[:80]!r}, a bundle holds only {', '.join(SUFFIXES)}")
        if os.path.isabs(name) or ".." in Path(name).parts or "\\" in name or "\0" in name:
            raise BundleError(f"{self.folder}: {where}.file is {name[:80]!r}, which leaves the bundle's folder")
        own, shared = self.folder / name, self.folder.parent / OBJECTS / (sha256 + Path(name).suffix)
        path, root = (own, self.folder) if os.path.lexists(own) else (shared, shared.parent)
        if not os.path.lexists(path):
            raise BundleError(f"{self.folder}: {where}.file {name!r} is missing; export the bundle again")
        if not path.resolve().is_relative_to(root.resolve()):
            raise BundleError(f"{self.folder}: {where}.file {name!r} is a link that leaves the bundle's folder")
        if not path.is_file():
            raise BundleError(f"{self.folder}: {where}.file {name!r} is not a regular file")
        return File(path, sha256)


def _typed(entry: Mapping[str, Any], field: str, expected: type | tuple[type, ...], folder: Path, where: str) -> Any:
    name = f"{where}.{field}" if where else field
    if not isinstance(entry, Mapping):
        raise BundleError(f"{folder}: {where} is {type(entry).__name__}, not an object; export the bundle again")
    if field not in entry:
        raise BundleError(f"{folder}: the manifest lacks {name}; export the bundle again")
    value = entry[field]
    if not isinstance(value, expected) or isinstance(value, bool):
        raise BundleError(f"{folder}: {name} is {type(value).__name__}; export the bundle again")
    return value
