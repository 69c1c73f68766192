"""Candidates: the generators in the running; one file a kind."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from .. import zoo
from ..bundle import MANIFEST, Bundle
from ..engines.pool import EnginePool
from ..errors import ConfigError
from ..types import Pixels

if TYPE_CHECKING:
    from ..extractors.space import FeatureSpace
    from .folder import Exemplars

ZOO = "zoo:"
_NAMED = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,99})=(.+)", re.DOTALL)


class Candidate(Protocol):
    """A source in the running."""

    name: str
    family: str
    sha256: str
    warnings: tuple[str, ...]
    """What to keep in mind where it is in the running."""


@runtime_checkable
class GenerativeCandidate(Candidate, Protocol):
    """A candidate that can be asked for pictures."""

    def make(self, prompts: Sequence[str], seeds: Sequence[int], steps: int) -> list[Pixels]:
        """One picture (H, W, 3) uint8 for each pair of prompt and seed, independent of the others in the call."""


@runtime_checkable
class ExemplarCandidate(Candidate, Protocol):
    """A candidate that has pictures and can make none."""

    def describe(self, space: FeatureSpace) -> Exemplars:
        """All its pictures in one feature space."""


def find(specifications: Sequence[str], pool: EnginePool) -> list[Candidate]:
    """Candidates by the form of what is written, each of another name.

    `zoo:` is the embedded zoo, `zoo:NAME` one of it; `NAME=FOLDER` given pictures; `NAME=https://HOST#model=MODEL` an
    images API (see `http`); anything else a bundle's folder or a folder of bundles. A folder whose own name has an =
    is written with a /, as in ./a=b.
    """
    chosen = [candidate for text in specifications for candidate in _candidates(text, pool)]
    if not chosen:
        raise ConfigError("no candidates; name at least one, for example zoo:")
    names = [candidate.name for candidate in chosen]
    if len(set(names)) < len(names):
        raise ConfigError(f"candidate {max(names, key=names.count)!r} is named twice; give each once")
    return chosen


def _candidates(text: str, pool: EnginePool) -> Sequence[Candidate]:
    if named := _NAMED.fullmatch(text):
        name, source = named.groups()
        if "://" in source:
            from .http import HttpCandidate

            return [HttpCandidate(name, source)]
        from .folder import FolderCandidate

        return [FolderCandidate(name, Path(source))]
    from .engine import EngineCandidate

    found = bundles(text)
    for bundle in found:
        if bundle.kind != "generator":
            raise ConfigError(f"candidate {bundle.name!r} is a bundle of kind {bundle.kind!r}; a candidate must be a generator")
    return [EngineCandidate(bundle, pool) for bundle in found]


def bundles(text: str) -> list[Bundle]:
    """The bundles that one specification stands for."""
    if _NAMED.fullmatch(text):
        raise ConfigError(f"{text.partition('=')[0]!r} is no bundle; name zoo:, the folder of a bundle or a folder of bundles")
    if text.startswith(ZOO):
        wanted = text.removeprefix(ZOO)
        return [zoo.bundle(wanted)] if wanted else zoo.candidates()
    folder = Path(text)
    if (folder / MANIFEST).exists() or not folder.is_dir():
        return [Bundle.open(folder)]
    found = [Bundle.open(path.parent) for path in sorted(folder.glob(f"[!.]*/{MANIFEST}"))]
    return [bundle for bundle in found if bundle.kind == "generator"] or [Bundle.open(folder)]
