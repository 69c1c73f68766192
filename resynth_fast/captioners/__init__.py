"""Captioners: what says in words what a picture shows; one file a kind.

A captioner that is a bundle is found by its family: the file of that name, with `_` for `-`, offers `of_bundle`.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from .. import zoo
from ..bundle import Bundle
from ..engines.pool import EnginePool
from ..errors import BundleError, ConfigError
from ..types import Pixels

ZOO = "zoo:"


class Captioner(Protocol):
    """Pictures in, prompts out."""

    name: str
    sha256: str

    def caption(self, pictures: Sequence[Pixels]) -> list[str]:
        """One sentence for each picture (H, W, 3) uint8, independent of the others."""


def find(text: str, pool: EnginePool) -> Captioner:
    """A captioner by name: `zoo:` is the zoo's tagger, an address an HTTP endpoint, else a bundle's folder."""
    if "://" in text:
        from .http import HttpCaptioner

        return HttpCaptioner(text)
    return of_bundle(zoo.bundle(zoo.TAGGER) if text == ZOO else Bundle.open(Path(text)), pool)


def notice(text: str) -> str:
    """What a user must know before the captioner called `text` is used; empty where there is nothing."""
    return (
        f"the pictures are sent to {urlsplit(text).netloc.rpartition('@')[2]} to be described, without their metadata"
        if "://" in text
        else ""
    )


def of_bundle(bundle: Bundle, pool: EnginePool) -> Captioner:
    """The captioner that a bundle describes; ConfigError if it is none, BundleError if this runtime has no code for its family."""
    if bundle.kind != "captioner":
        raise ConfigError(f"captioner {bundle.name!r} is a bundle of kind {bundle.kind!r}; give one written by `resynth export captioner`")
    module = f"{__name__}.{bundle.family.replace('-', '_')}"
    if not bundle.family.replace("-", "").isalpha() or importlib.util.find_spec(module) is None:
        raise BundleError(f"{bundle.folder}: this runtime has no captioner of family {bundle.family[:80]!r}; update resynth-fast")
    make = getattr(importlib.import_module(module), "of_bundle", None)
    if make is None:
        raise BundleError(f"{bundle.folder}: captioner family {bundle.family!r} is not one of bundles; export the captioner again")
    found: Captioner = make(bundle, pool)
    return found
