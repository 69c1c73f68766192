"""Statistics of the generators in a frozen snapshot of a gallery: fitted once, stored, and named by hash in every verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import BundleError
from ..types import Doubles, Integers
from .calibration import Calibration
from .prior import ADVANTAGE, INTERACTION, INTERACTION_KNOWN, Prior, gallery_prior
from .whitening import SOLID_CELL, Constants, Moment, Whitening, check_orthonormal, gallery_weight, moment, whitening_of, within

VERSION = 2
"""Of the consistency whose threshold a fit stores: 1 compared the best score with an unknown generator's, 2 adds a cosine."""


@dataclass(frozen=True, kw_only=True)
class GalleryFit:
    """Means and covariance of a gallery's pictures in the scaled (not yet whitened) features of one extractor."""

    extractor: str
    """SHA-256 of the extractor"""
    snapshot: str
    """SHA-256 of the gallery's entries"""
    names: tuple[str, ...]
    """generators"""
    means: Doubles
    """(G, d) mean of each generator, content removed"""
    prompts: Doubles
    """(G,) number of prompts of each generator"""
    pictures: Doubles
    """(G,) number of pictures of each generator"""
    pictures_per_cell: float
    """mean number of pictures per generator and prompt"""
    own: Moment | None
    """covariance within cells, None if there are too few pictures"""
    calibration: Calibration | None = None
    sha256: str | None = None
    """identity of the stored fit, None before it is stored"""

    @classmethod
    def of(
        cls, x: Doubles, generator: Integers, prompt: Integers, names: Sequence[str], *, extractor: str = "", snapshot: str = ""
    ) -> GalleryFit:
        """Fit scaled features (n, d); `generator` (n,) are indices of `names`."""
        prior = gallery_prior(x, generator, prompt, range(len(names)))
        pictures = np.bincount(generator, minlength=len(names)).astype(np.float64)
        enough = len(x) > len(np.unique(generator)) + 1
        return cls(
            extractor=extractor,
            snapshot=snapshot,
            names=tuple(names),
            means=prior.means,
            prompts=prior.prompts,
            pictures=pictures,
            pictures_per_cell=prior.pictures_per_cell,
            own=moment(within(x, generator, prompt)) if enough else None,
        )

    def whitening(self, constants: Constants, families: Sequence[str] | None = None) -> Whitening:
        """The extractor's whitening, combined with the gallery's own covariance."""
        return whitening_of(constants, self.own, gallery_weight(self.pictures_per_cell, int(self.pictures.sum())), families)

    def prior(self, whitening: Whitening, candidates: Sequence[str]) -> Prior:
        """The prior of `candidates`; a candidate that is not in the gallery has zero pictures."""
        rows = [self.names.index(name) if name in self.names else -1 for name in candidates]
        means = np.stack([self.means[r] if r >= 0 else np.zeros(self.means.shape[1]) for r in rows])
        prompts = np.array([self.prompts[r] if r >= 0 else 0.0 for r in rows])
        interaction = INTERACTION_KNOWN if self.pictures_per_cell >= SOLID_CELL else INTERACTION
        advantage = ADVANTAGE if prompts.all() else 0.0
        return Prior(whitening(means), prompts, self.pictures_per_cell, interaction, advantage)

    def pictures_of(self, candidates: Sequence[str]) -> list[int]:
        """Number of gallery pictures of each candidate."""
        return [int(self.pictures[self.names.index(name)]) if name in self.names else 0 for name in candidates]

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The arrays that a gallery stores, beside `settings`; directions in 16 bits."""
        arrays: dict[str, npt.NDArray[Any]] = {"means": self.means.astype(np.float32), "prompts": self.prompts, "pictures": self.pictures}
        if self.own is not None:
            arrays |= {"own.vectors": self.own.vectors.astype(np.float16), "own.values": self.own.values.astype(np.float32)}
        return arrays

    def settings(self) -> dict[str, Any]:
        """The settings that a gallery stores, as JSON."""
        calibration = None if self.calibration is None else self.calibration.to_json()
        return {
            "version": VERSION,
            "extractor": self.extractor,
            "names": list(self.names),
            "cell": self.pictures_per_cell,
            "calibration": calibration,
        }

    @classmethod
    def restored(cls, arrays: Mapping[str, npt.NDArray[Any]], settings: Mapping[str, Any], *, sha256: str, snapshot: str) -> GalleryFit:
        """The fit with these `arrays` and `settings`; BundleError if they are invalid, or of another version."""
        if settings.get("version") != VERSION:
            raise BundleError(f"fit {sha256[:12]}… was made by another version of resynth-fast; make it again with `resynth gallery fit`")
        try:
            values = {name: array.astype(np.float64) for name, array in arrays.items()}
            if not all(np.isfinite(array).all() for array in values.values()):
                raise ValueError("a number is not finite")
            own = Moment(values["own.vectors"], values["own.values"]) if "own.vectors" in values else None
            if own is not None:
                check_orthonormal(own.vectors.T, "covariance within the gallery's cells")
            calibration = Calibration.from_json(settings["calibration"], f"fit {sha256[:12]}…") if settings["calibration"] else None
            return cls(
                sha256=sha256,
                extractor=settings["extractor"],
                snapshot=snapshot,
                names=tuple(settings["names"]),
                means=values["means"],
                prompts=values["prompts"],
                pictures=values["pictures"],
                pictures_per_cell=settings["cell"],
                own=own,
                calibration=calibration,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise BundleError(f"fit {sha256[:12]}… is broken ({error!r}); make it again with `resynth gallery fit`") from error
