"""Captioners: describe a picture in one sentence. One module a kind, found by listing (see `plugins`).

A module of a kind has `matches(source) -> bool` and `open(source, pool) -> Captioner`. A source is the text of
`--captioner` or, where no kind matches the text, the bundle in the folder of that name. A module whose captioner sends
pictures to another machine also has `notice(text) -> str`, a line that is shown before it is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Protocol

from .. import plugins, zoo
from ..bundle import Bundle
from ..engines.pool import EnginePool
from ..errors import BundleError, ConfigError
from ..types import Pixels

ZOO = "zoo:"


class Captioner(Protocol):
    """Writes a prompt for a picture."""

    name: str
    sha256: str

    def caption(self, pictures: Sequence[Pixels]) -> list[str]:
        """One sentence for each picture (H, W, 3) uint8, independent of the others."""


def find(text: str, pool: EnginePool) -> Captioner:
    """Open a captioner: `zoo:` is the zoo's tagger, an address an HTTP endpoint, anything else a bundle's folder."""
    scheme = plugins.scheme(text)
    if kind := _kind(text):
        captioner: Captioner = kind.open(text, pool)
        return captioner
    if scheme not in ("", "zoo"):  # the rest of an address may hold a password
        raise ConfigError(
            f"captioner: {scheme}:… has no known form; write zoo:, a bundle's folder or https://HOST, and a path with a colon as ./a:b"
        )
    return of_bundle(zoo.bundle(zoo.TAGGER) if text == ZOO else Bundle.open(Path(text)), pool)


def notice(text: str) -> str:
    """A line to show before the captioner `text` is used; empty if there is none."""
    notice = getattr(_kind(text), "notice", None)
    return str(notice(text)) if notice else ""


def of_bundle(bundle: Bundle, pool: EnginePool) -> Captioner:
    """The captioner of a bundle. ConfigError if the bundle is of another kind, BundleError if its family is not supported."""
    if bundle.kind != "captioner":
        raise ConfigError(f"captioner {bundle.name!r} is a bundle of kind {bundle.kind!r}; give one written by `resynth export captioner`")
    kind = _kind(bundle)
    if kind is None:
        raise BundleError(f"{bundle.folder}: this runtime has no captioner of family {bundle.family[:80]!r}; update resynth-fast")
    captioner: Captioner = kind.open(bundle, pool)
    return captioner


def _kind(source: str | Bundle) -> ModuleType | None:
    name = source.name if isinstance(source, Bundle) else f"{plugins.scheme(source)}:…" if plugins.scheme(source) else source
    return plugins.match(__name__, source, f"captioner {name}")
