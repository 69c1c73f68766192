"""Captioners: what says in words what a picture shows; one file a kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ..types import Pixels


class Captioner(Protocol):
    """Pictures in, prompts out."""

    name: str
    sha256: str

    def caption(self, pictures: Sequence[Pixels]) -> list[str]:
        """One sentence for each picture (H, W, 3) uint8, independent of the others."""
