"""The bundle: the one contract between export and runtime, a folder with `bundle.json` and the files that it lists.

The manifest lists every file of a candidate, an extractor or a captioner with its SHA-256. Only this module knows file
names. A file lies in the bundle's own folder or, where several bundles share it, in the folder `objects` beside them,
named by its hash.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from .backends.onnx_model import OnnxModel
from .errors import BundleError

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
    """A file of a bundle. `path` is resolved and lies inside the bundle; its content is not verified yet."""

    path: Path
    sha256: str

    def read(self) -> bytes:
        """The content. The first read checks its hash; later reads check size, modification time and inode."""
        try:
            content = self.path.read_bytes()
        except OSError as error:
            raise self._unreadable(error) from error
        self._verify(lambda: hashlib.sha256(content).hexdigest())
        return content

    def verified(self) -> Path:
        """The path of a file too large to read at once, its hash checked as by `read`."""
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
                    f"{self.path} has SHA-256 {found[:12]}…, but the manifest lists {self.sha256[:12]}…: "
                    "the file was changed or truncated; export the bundle again"
                )
            _verified.add(key)

    def _unreadable(self, error: OSError) -> BundleError:
        return BundleError(f"cannot read {self.path}: {error.strerror}; export the bundle again")


@dataclass(frozen=True, slots=True)
class Tensor:
    """Shape and dtype of a graph's input or output. A string names a dimension of variable length."""

    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True, slots=True)
class Component:
    """One network with fixed inputs and outputs. The hash of its graph covers `data`, the files of its large weights, too."""

    file: File
    precision: str
    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]
    data: tuple[File, ...] = ()
    flops: int = 0
    """Operations of one row in matrix products, convolutions and attention; 0 where they were not counted."""

    @property
    def size_bytes(self) -> int:
        """Size of graph and data on disk."""
        return sum(file.path.stat().st_size for file in (self.file, *self.data))

    def onnx_model(self) -> OnnxModel:
        """The model that a backend loads, every hash checked."""
        return OnnxModel(self.file.read(), {file.path.name: file.verified() for file in self.data}, self.file.path)


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """`tokenizer.json`, and the settings that it lacks.

    With `lowercase` a caption is lowercased. `prefix` is put before it, but not before the empty caption of guidance. Texts are
    truncated to `max_tokens` with the end token kept, then padded with `pad_id`.
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
    """A sampler as data: one noise scheduler at one number of steps and one resolution."""

    noise_scheduler: str
    init_noise_sigma: float
    rows: tuple[StepRow, ...]

    @classmethod
    def read(cls, entry: Mapping[str, Any]) -> StepTable:
        """The table in an entry of a manifest; KeyError, TypeError or ValueError if the entry is broken."""
        rows = []
        for row in entry["rows"]:
            timestep, scale, noise = (float(row[key]) for key in ("timestep", "input_scale", "noise"))
            samples, outputs = (tuple(map(float, row[key])) for key in ("samples", "outputs"))
            rows.append(StepRow(timestep, scale, samples, outputs, noise))
        return cls(str(entry["noise_scheduler"]), float(entry["init_noise_sigma"]), tuple(rows))


@dataclass(frozen=True, slots=True)
class Guidance:
    """Classifier-free guidance.

    `none` and `embedded` take one denoiser row a sample; with `embedded` the graph holds the scale. `batch-2` takes a second,
    unconditional row: m = u + scale (c − u). `rescaled` moves m back towards the standard deviation of c by the share `rescale`.
    The unconditional row has the `empty` caption, or text states of `zeros`.
    """

    mode: str
    scale: float
    rescale: float = 0.0
    unconditional: str = "empty"

    @property
    def doubled(self) -> bool:
        """Whether the denoiser takes two rows a sample."""
        return self.mode in ("batch-2", "rescaled")

    def scaled(self, multiple: float) -> Guidance:
        """`multiple` times the scale; 0: without guidance. Unchanged where the scale is in the graph, or there is none."""
        scaled = replace(self, scale=self.scale * multiple) if multiple else Guidance("none", 0.0)
        return scaled if self.doubled else self


class Bundle:
    """A bundle whose manifest was checked; graphs and weights are read and verified when an engine is loaded.

    Args:
        folder: the bundle's folder.
        manifest: the parsed `bundle.json`.

    Raises:
        BundleError: a field is missing, has another type, or a value that this runtime does not know; the message names it.

    Example:
        >>> Bundle.open(Path("bundles/my-model")).resolution_px
    """

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
            raise BundleError(
                f"{folder}: name {self.name[:40]!r} must be letters, digits, '.', '_' or '-', at most 100; rename it in the manifest"
            )
        self.family: str = self._get("family", str)
        self.licence: str = self._get("licence", str)

    @classmethod
    def open(cls, folder: Path) -> Bundle:
        """Read `folder/bundle.json` and check it and the paths of its files. Raises BundleError."""
        path = folder / MANIFEST
        try:
            if (size := path.stat().st_size) > MAX_MANIFEST_BYTES:
                raise BundleError(f"{path}: {size} bytes; a manifest has at most {MAX_MANIFEST_BYTES}; export the bundle again")
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
        """Hash of the manifest, which lists the hash of every file: the identity of the bundle, wherever it is stored."""
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
        """One tokenizer for each input `tokens_i` of the text component, in order."""
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
        """The file of fitted arrays (safetensors), for example an extractor's scaling."""
        return self._file(self._get("constants", dict), "constants")

    @cached_property
    def domain(self) -> File | None:
        """The file of a `Domain` (safetensors), the pictures that it was fitted on; None if the bundle does not say."""
        return self._file(self._get("domain", dict), "domain") if "domain" in self.manifest else None

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
                f"{self.folder}: guidance.unconditional is {unconditional!r}, "
                f"this runtime knows {', '.join(UNCONDITIONAL)}; update resynth-fast"
            )
        scale, rescale = (_typed({"rescale": 0.0} | entry, key, (int, float), self.folder, "guidance") for key in ("scale", "rescale"))
        return Guidance(mode, float(scale), float(rescale), unconditional)

    @cached_property
    def lineage(self) -> Mapping[str, str]:
        """Hashes of the weights of autoencoder, text encoders and denoiser. Candidates with an equal part are relatives."""
        return MappingProxyType(dict(self._get("lineage", dict)))

    def step_table(self, steps: int) -> StepTable:
        """The table for `steps` denoising steps at the native resolution."""
        height, width = self.resolution_px
        tables = self._get("step_tables", dict).get(f"{height}x{width}", {})
        entry = tables.get(str(steps))
        if entry is None:
            raise BundleError(
                f"{self.name}: no step table for {steps} steps at {height}x{width}; "
                f"the bundle has tables for {', '.join(sorted(tables, key=int))} steps: choose one of these, or export again with --steps"
            )
        where = f"step_tables.{height}x{width}.{steps}"
        try:
            return StepTable.read(entry)
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(f"{self.folder}: {where} is broken ({error!r}); export the bundle again") from error

    def files(self) -> list[File]:
        """Every file that the manifest lists, its path checked."""
        found = [file for component in self.components.values() for file in (component.file, *component.data)]
        found += [tokenizer.file for tokenizer in self.tokenizers] if self.manifest.get("tokenizers") else []
        return found + [self._file(self._get(name, dict), name) for name in ("constants", "domain") if self.manifest.get(name)]

    def verify(self) -> None:
        """Read and hash every file (`resynth candidates list --verify`)."""
        for file in self.files():
            file.verified()

    def get(self, field: str, expected: type) -> Any:
        """A field that only one kind of bundle has. BundleError if it is missing or of another type."""
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
        """Files of weights. Each is named by its hash, as in the graph, and lies beside the graph, where libraries look for it."""
        entries = _typed({"data": [], **entry}, "data", list, self.folder, where)
        files = tuple(self._file(item, f"{where}.data.{i}") for i, item in enumerate(entries))
        graph = self._file(entry, where)
        for i, file in enumerate(files):
            if file.path != graph.path.parent / f"{file.sha256}{DATA_SUFFIX}":
                raise BundleError(
                    f"{self.folder}: {where}.data.{i}.file is {file.path.name!r}; "
                    f"a file of weights must be named by its SHA-256 with {DATA_SUFFIX} and lie beside its graph; export the bundle again"
                )
        return files

    def _file(self, entry: Mapping[str, Any], where: str) -> File:
        """Resolve a file inside the bundle or, by its hash, in `objects` beside it. Nothing else is accepted."""
        name = _typed(entry, "file", str, self.folder, where)
        sha256 = _typed(entry, "sha256", str, self.folder, where)
        if not _SHA256.fullmatch(sha256):
            raise BundleError(f"{self.folder}: {where}.sha256 is {sha256[:80]!r}, not 64 hexadecimal digits; export the bundle again")
        if Path(name).suffix not in SUFFIXES:
            raise BundleError(
                f"{self.folder}: {where}.file is {name[:80]!r}, a bundle holds only {', '.join(SUFFIXES)}; export the bundle again"
            )
        if os.path.isabs(name) or ".." in Path(name).parts or "\\" in name or "\0" in name:
            raise BundleError(
                f"{self.folder}: {where}.file is {name[:80]!r}, which lies outside the bundle's folder; export the bundle again"
            )
        own, shared = self.folder / name, self.folder.parent / OBJECTS / (sha256 + Path(name).suffix)
        path, root = (own, self.folder) if os.path.lexists(own) else (shared, shared.parent)
        if not os.path.lexists(path):
            raise BundleError(f"{self.folder}: {where}.file {name!r} is missing; export the bundle again")
        if not path.resolve().is_relative_to(root.resolve()):
            raise BundleError(f"{self.folder}: {where}.file {name!r} is a link to outside the bundle's folder; copy the file into it")
        if not path.is_file():
            raise BundleError(f"{self.folder}: {where}.file {name!r} is not a regular file; copy the file itself into the bundle")
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
