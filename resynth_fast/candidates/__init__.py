"""Candidates: the generators in the running; one file a kind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from .. import zoo
from ..bundle import MANIFEST, Bundle
from ..engines import EnginePool
from ..errors import ConfigError
from ..types import Pixels

ZOO = "zoo:"


class Candidate(Protocol):
    """A generator that can be asked for pictures."""

    name: str
    family: str
    sha256: str

    def make(self, prompts: Sequence[str], seeds: Sequence[int], steps: int) -> list[Pixels]:
        """One picture (H, W, 3) uint8 for each pair of prompt and seed, independent of the others in the call."""


def find(specifications: Sequence[str], pool: EnginePool) -> list[Candidate]:
    """Candidates by name: `zoo:` is the embedded zoo, `zoo:NAME` one of it, else a bundle's folder or a folder of bundles."""
    from .engine import EngineCandidate

    chosen = [bundle for text in specifications for bundle in bundles(text)]
    if not chosen:
        raise ConfigError("no candidates; name at least one, for example zoo:")
    for bundle in chosen:
        if bundle.kind != "generator":
            raise ConfigError(f"candidate {bundle.name!r} is a bundle of kind {bundle.kind!r}; a candidate must be a generator")
    names = [bundle.name for bundle in chosen]
    if len(set(names)) < len(names):
        raise ConfigError(f"candidate {max(names, key=names.count)!r} is named twice; give each once")
    return [EngineCandidate(bundle, pool) for bundle in chosen]


def bundles(text: str) -> list[Bundle]:
    """The bundles that one specification stands for."""
    if text.startswith(ZOO):
        wanted = text.removeprefix(ZOO)
        return [zoo.bundle(wanted)] if wanted else zoo.candidates()
    folder = Path(text)
    if (folder / MANIFEST).exists() or not folder.is_dir():
        return [Bundle.open(folder)]
    found = [Bundle.open(path.parent) for path in sorted(folder.glob(f"[!.]*/{MANIFEST}"))]
    return [bundle for bundle in found if bundle.kind == "generator"] or [Bundle.open(folder)]
