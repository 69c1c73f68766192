"""The record of one reference, and the key that identifies it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from ..bundle import Bundle, StepTable
from ..errors import BundleError, ConfigError, InputError
from ..kernels import noise
from ..types import Pixels

GENERAL = "general"
"""Default group. Entries of other groups (of one probe, of one batch) are fitted only if their group is named."""
MAX_NAME_CHARS = 100
MAX_PROMPT_CHARS = 20_000
MAX_GROUP_CHARS = 200

_SHA256 = re.compile(r"[0-9a-f]{64}")
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode


@dataclass(frozen=True, slots=True, kw_only=True)
class ResynthesisKey:
    """Everything that determines a resynthesis: equal keys mean equal pictures."""

    bundle_sha256: str
    prompt: str
    table_sha256: str
    """Identity of the step table, see `table_sha256`."""
    steps: int
    guidance_scale: float
    resolution_px: tuple[int, int]
    """(height, width)"""
    seed: int
    backend: str
    """Name and version of the backend, since another version may round differently."""
    precision: str
    noise_version: int

    @classmethod
    def of(cls, bundle: Bundle, prompt: str, *, seed: int, steps: int, backend: str) -> ResynthesisKey:
        """The key of a resynthesis by `bundle` at its native resolution; `backend` is name and version."""
        return cls(
            bundle_sha256=bundle.sha256,
            prompt=prompt,
            table_sha256=table_sha256(bundle.step_table(steps)),
            steps=steps,
            guidance_scale=bundle.guidance.scale,
            resolution_px=bundle.resolution_px,
            seed=seed,
            backend=backend,
            precision=", ".join(f"{name} {component.precision}" for name, component in sorted(bundle.components.items())),
            noise_version=noise.VERSION,
        )


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One reference. InputError if a text cannot be stored.

    An added picture has no `origin`, and its `picture_sha256` is the hash of the file. A resynthesis has its exact key as
    `origin`, and its `picture_sha256` is the hash of its pixels (`pixels_sha256`), which does not depend on the encoder.
    """

    generator: str
    picture_sha256: str
    prompt: str | None = None
    origin: ResynthesisKey | None = None

    def __post_init__(self) -> None:
        if not _SHA256.fullmatch(self.picture_sha256):
            raise InputError(f"picture_sha256 is {self.picture_sha256[:80]!r}; it must be 64 hexadecimal digits")
        name = self.generator
        if not name or len(name) > MAX_NAME_CHARS or not name.isprintable() or name != name.strip():
            raise InputError(f"generator is {name[:120]!r}; a name is 1 to {MAX_NAME_CHARS} printable characters without spaces around")
        if self.origin and self.origin.prompt != self.prompt:
            raise InputError(f"prompt is {self.prompt!r}, but the resynthesis was made from {self.origin.prompt!r}; give the same prompt")
        if self.prompt is not None:
            _check_prompt(self.prompt)

    @classmethod
    def resynthesis(cls, generator: str, picture_sha256: str, origin: ResynthesisKey) -> Entry:
        """The entry of a resynthesis by `generator` from the prompt of `origin`."""
        return cls(generator=generator, picture_sha256=picture_sha256, prompt=origin.prompt, origin=origin)

    @cached_property
    def key(self) -> bytes:
        """32 bytes that identify the reference: by the origin of a resynthesis, by file and generator of an added picture."""
        if self.origin:
            return key_of(self.origin)
        return _digest({"kind": "given", "generator": self.generator, "picture": self.picture_sha256})

    def checksum(self, vector: bytes | memoryview) -> bytes:
        """32 bytes over the whole record of the reference and the stored bytes of its features."""
        record = {"generator": self.generator, "picture": self.picture_sha256, "prompt": self.prompt}
        digest = hashlib.sha256(_canonical({**record, "origin": asdict(self.origin) if self.origin else None}))
        digest.update(b"\0")
        digest.update(vector)
        return digest.digest()


@dataclass(frozen=True, kw_only=True)
class StoredEntry(Entry):
    """A reference in the gallery."""

    row: int
    """Position in every vector file; a row is never used twice."""
    added: str
    """UTC, ISO 8601."""


def check_group(group: str) -> None:
    """ConfigError unless `group` is a valid label."""
    if not group or len(group) > MAX_GROUP_CHARS or not group.isprintable():
        raise ConfigError(f"group is {group[:80]!r}; a label is 1 to {MAX_GROUP_CHARS} printable characters")


def key_of(origin: ResynthesisKey) -> bytes:
    """32 bytes that identify a resynthesis."""
    return _digest({"kind": "resynthesis", **asdict(origin)})


def table_sha256(table: StepTable) -> str:
    """Identity of a step table: the hash of its numbers, independent of where they are stored."""
    return _digest(asdict(table)).hex()


def pixels_sha256(pixels: Pixels) -> str:
    """Identity of a picture (H, W, 3) uint8 by its pixels."""
    digest = hashlib.sha256("×".join(map(str, pixels.shape)).encode())
    digest.update(pixels.tobytes())
    return digest.hexdigest()


def origin_to_json(origin: ResynthesisKey | None) -> str | None:
    """The origin as JSON for the index, without the prompt, which has its own column."""
    return None if origin is None else _canonical({k: v for k, v in asdict(origin).items() if k != "prompt"}).decode()


def origin_from_json(text: str | None, prompt: str | None) -> ResynthesisKey | None:
    """Inverse of `origin_to_json`; BundleError for anything else."""
    if text is None:
        return None
    try:
        values: Mapping[str, Any] = json.loads(text)
        height, width = values["resolution_px"]
        if prompt is None:
            raise ValueError("it has no prompt")
        return ResynthesisKey(**{**values, "prompt": prompt, "resolution_px": (height, width)})
    except (KeyError, TypeError, ValueError) as error:
        raise BundleError(f"the origin of an entry cannot be read ({error}); run `resynth gallery prune`") from error


def _check_prompt(prompt: str) -> None:
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"prompt {prompt[:80]!a} is not Unicode text; write it in UTF-8") from error
    if len(prompt) > MAX_PROMPT_CHARS or "\0" in prompt:
        raise InputError(f"prompt {prompt[:40]!a}… has {len(prompt)} characters; it must have at most {MAX_PROMPT_CHARS}, and no NUL")


def _canonical(value: Mapping[str, Any]) -> bytes:
    return _encode(value).encode()


def _digest(value: Mapping[str, Any]) -> bytes:
    return hashlib.sha256(_canonical(value)).digest()
