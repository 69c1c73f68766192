"""Opens the domains of bundles: which pictures an extractor and a captioner know (`scoring/domain.py`).

An extractor's domain is a region of its own features. A captioner's is one of the texture descriptor: a network that tells faces
apart is blind to everything else, and maps photographs into the midst of its faces.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import files
from ..bundle import Bundle
from ..errors import BundleError, ConfigError
from ..scoring.domain import Domain
from ..types import Floats, Pixels
from .pixels import PixelRecipe
from .texture import TextureExtractor


@dataclass(frozen=True, slots=True)
class TextureDomain:
    """Pictures that are known by the texture of their centre squares, of `working_size` px."""

    working_size: int
    domain: Domain

    def outside(self, picture: Pixels) -> bool:
        """Whether a picture (H, W, 3) uint8 is unlike the fitted ones."""
        return self.domain.outside(textures([picture], self.working_size)[0])


def textures(pictures: Any, working_size: int) -> Floats:
    """Pictures (H, W, 3) uint8 → (n, d) features of their centre squares, resized to `working_size` px."""
    squares = PixelRecipe(working_size=working_size, border=0.0, jpeg_quality=None).normalised(pictures)
    return TextureExtractor(working_size).extract(np.asarray(squares))


def open_domain(bundle: Bundle, columns: int) -> Domain | None:
    """The domain of a bundle in features of so many columns; None if the bundle has none. BundleError if it is broken."""
    if bundle.domain is None:
        return None
    try:
        domain = Domain.restored(files.unpack_arrays(bundle.domain.read()))
        if len(domain.mean) != columns:
            raise ValueError(f"it has {len(domain.mean)} columns, not {columns}")
    except ValueError as error:
        raise BundleError(f"{bundle.folder}: the domain cannot be used ({error}); export the bundle again") from error
    return domain


def of_captioner(captioner: object) -> TextureDomain | None:
    """The domain of a captioner; None where it has no bundle, or its bundle none. BundleError if it is broken."""
    bundle = getattr(captioner, "bundle", None)
    if not isinstance(bundle, Bundle) or bundle.domain is None:
        return None
    size = bundle.get("domain", dict).get("working_size")
    try:
        extractor = TextureExtractor(size)
    except (ConfigError, TypeError) as error:
        raise BundleError(f"{bundle.folder}: domain.working_size is {size!r} ({error}); export the captioner again") from error
    domain = open_domain(bundle, extractor.dimension)
    assert domain is not None
    return TextureDomain(size, domain)
