"""Candidates: the generators among which a picture is attributed. One module a kind, found by listing (see `plugins`).

A module of a kind has `matches(text) -> bool`, whether a specification names a candidate of its kind, and
`open(text, pool) -> Sequence[Candidate]`. See docs/extending.md.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import plugins, zoo
from ..bundle import MANIFEST, Bundle
from ..devices.base import Device
from ..engines.pool import EnginePool
from ..errors import ConfigError
from ..scheduler import Work
from ..types import Pixels

if TYPE_CHECKING:
    from ..extractors.space import FeatureSpace
    from .folder import Exemplars

ZOO = "zoo:"
GALLERY = "gallery:"
_NAMED = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,99})=(.+)", re.DOTALL)


class Candidate(ABC):
    """A possible source of a picture."""

    name: str
    family: str
    sha256: str
    """Identity: of its bundle, its pictures or its description."""
    warnings: tuple[str, ...]
    """Warnings of every verdict in which it is a candidate."""


class GenerativeCandidate(Candidate):
    """A candidate that generates pictures."""

    @abstractmethod
    def make(self, prompts: Sequence[str], seeds: Sequence[int], steps: int) -> list[Pixels]:
        """Generate one picture (H, W, 3) uint8 for each pair of prompt and seed, independent of the rest of the call."""


class ScheduledCandidate(GenerativeCandidate):
    """A candidate whose engines run in this process, so that the scheduler plans their order and memory."""

    bundle: Bundle

    @property
    def guided(self) -> bool:
        """Whether its guidance scale can be changed; if not, `draw` and `work` are always asked for its own."""
        return self.bundle.guidance.doubled

    @abstractmethod
    def work(self, steps: int) -> Work:
        """The engines and model calls that its pictures take, with its own guidance."""

    @abstractmethod
    def encode(self, prompts: Sequence[str]) -> None:
        """Encode prompts ahead of their pictures."""

    @abstractmethod
    def draw(self, prompts: Sequence[str], seeds: Sequence[int], steps: int, guidance: float = 1.0) -> tuple[Device[Any], Any]:
        """As `make`, with `guidance` times the guidance scale: the device of the pictures, and the pictures (b, H, W, 3) uint8 on it."""


class ExemplarCandidate(Candidate):
    """A candidate that generates nothing, but has pictures known to come from it."""

    @abstractmethod
    def describe(self, space: FeatureSpace) -> Exemplars:
        """All its pictures as points of a feature space."""


def find(specifications: Sequence[str], pool: EnginePool, gallery: Callable[[str], Sequence[Candidate]] | None = None) -> list[Candidate]:
    """Open candidates, each of a different name.

    `zoo:` is the embedded zoo and `zoo:NAME` one of its generators; `NAME=FOLDER` a folder of exemplars;
    `NAME=https://HOST#model=MODEL` an images API (see `http`); anything else a bundle's folder or a folder of bundles. A
    path that contains = or : must contain a / before it, as in ./a=b. Installed plug-ins add other forms. `gallery:` and
    `gallery:NAME` are opened by `gallery`, a function from the text to candidates.
    """
    candidates = [candidate for text in specifications for candidate in _open(text, pool, gallery)]
    if not candidates:
        raise ConfigError("there are no candidates; name at least one, for example zoo:")
    names = [candidate.name for candidate in candidates]
    if len(set(names)) < len(names):
        raise ConfigError(f"candidate {max(names, key=names.count)!r} is named twice; give each once")
    return candidates


def of_gallery(text: str) -> bool:
    """Whether a specification is gallery: or gallery:NAME."""
    return text.startswith(GALLERY)


def _open(text: str, pool: EnginePool, gallery: Callable[[str], Sequence[Candidate]] | None) -> Sequence[Candidate]:
    if of_gallery(text):
        if gallery is None:
            raise ConfigError(f"candidate {text[:80]} takes its pictures from a gallery; name its folder with --gallery")
        return gallery(text)
    name, source = split_name(text)
    scheme = plugins.scheme(source)
    # An address may hold a password: no more than its scheme is repeated.
    label = f"candidate {f'{name}=' if name else ''}{f'{scheme}:…' if scheme else source}"
    kind = plugins.match(__name__, text, label)
    if kind is None:
        raise ConfigError(
            f"{label} has no known form; write zoo:, zoo:NAME, gallery:, a bundle's folder, a folder of bundles, NAME=FOLDER "
            "or NAME=https://HOST, and a path with a colon as ./a:b"
        )
    candidates: Sequence[Candidate] = kind.open(text, pool)
    return candidates


def is_bundle(text: str) -> bool:
    """Whether a specification has the form of the zoo or of a path, and so stands for bundles."""
    return not split_name(text)[0] and plugins.scheme(text) in ("", "zoo")


def split_name(text: str) -> tuple[str, str]:
    """NAME=SOURCE → (NAME, SOURCE), for candidates that have no name of their own; ("", text) for another form."""
    named = _NAMED.fullmatch(text)
    return (named[1], named[2]) if named else ("", text)


def bundles(text: str) -> list[Bundle]:
    """The bundles of one specification: zoo:, zoo:NAME, a bundle's folder or a folder of bundles. ConfigError for another form."""
    if not is_bundle(text):
        raise ConfigError(f"{text!r} does not name a bundle; give zoo:, zoo:NAME, a bundle's folder or a folder of bundles")
    if text.startswith(ZOO):
        name = text.removeprefix(ZOO)
        return [zoo.bundle(name)] if name else zoo.candidates()
    folder = Path(text)
    if (folder / MANIFEST).exists() or not folder.is_dir():
        return [Bundle.open(folder)]
    found = [Bundle.open(path.parent) for path in sorted(folder.glob(f"[!.]*/{MANIFEST}"))]
    return [bundle for bundle in found if bundle.kind == "generator"] or [Bundle.open(folder)]
