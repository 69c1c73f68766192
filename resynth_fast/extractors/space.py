"""The feature space of an extractor bundle: pixel normalisation, features, scaling and whitening, in that order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .. import files, plugins
from ..bundle import Bundle
from ..devices.base import CPU, Device
from ..engines.pool import EnginePool
from ..errors import BundleError, ConfigError
from ..scoring.calibration import UNCALIBRATED, Calibration
from ..scoring.domain import Domain
from ..scoring.gallery_fit import GalleryFit
from ..scoring.prior import Prior, no_gallery
from ..scoring.whitening import Constants, Moment, Whitening, check_orthonormal, whitening_of
from ..types import Array, Doubles, Floats, Pixels
from . import Extractor
from .domain import open_domain
from .pixels import PixelRecipe

NUISANCE, LENGTH = "nuisance.", ".length"


@dataclass(frozen=True, slots=True)
class FeatureSpace:
    """Maps pictures of any size to points of one space."""

    name: str
    sha256: str
    pixels: PixelRecipe
    extractor: Extractor
    constants: Constants
    whitening: Whitening
    calibration: Calibration
    fit: GalleryFit | None = None
    """A gallery's fit, if there is a gallery: its covariance is in the whitening, and its means are the prior."""
    domain: Domain | None = None
    """The pictures that the constants were fitted on; None where the bundle does not say."""

    @property
    def tap(self) -> str:
        """Names of the feature blocks, as they are written into the record."""
        return ",".join(self.extractor.block_sizes)

    def __call__(self, pictures: Sequence[Pixels]) -> Doubles:
        """n pictures (H, W, 3) uint8 → (n, d) float64, each independent of the others. BundleError if a feature is not finite."""
        return self.points(self.features(pictures))

    def points(self, features: Floats) -> Doubles:
        """Scale and whiten `features`: (n, d) → (n, d) float64. Not even a row's last bit depends on the other rows."""
        # One row per call: the order in which BLAS adds up a row depends on the number of rows.
        scaled = self.constants.scaled(features)
        return np.concatenate([self.whitening(row[None]) for row in scaled]) if len(scaled) else scaled

    def features(self, pictures: Sequence[Pixels] | Array, device: Device[Any] = CPU) -> Floats:
        """n pictures → (n, d) float32, unscaled, as a gallery stores them and constants are fitted on them. BundleError if not finite.

        They are computed on `device`, of pictures on the host or of (n, H, W, 3) on the device, and copied to the host (12 kB a
        picture for the texture descriptor), where whitening and scores run in float64.
        """
        features = self.extractor.extract(self.pixels.normalised(pictures, device), device)
        if not np.isfinite(features).all():
            raise BundleError(f"{self.name}: a feature is not finite; verify or export the extractor again")
        return features

    def prior(self, candidates: Sequence[str]) -> Prior:
        """Prior of `candidates` by the gallery's fit; an empty one without a fit."""
        if self.fit is None:
            return no_gallery(len(candidates), len(self.constants.mean))
        return self.fit.prior(self.whitening, candidates)

    def fitted(self, fit: GalleryFit) -> FeatureSpace:
        """This space with the whitening, calibration and prior of a gallery's fit; uncalibrated if the fit is.

        ConfigError if it was fitted on another extractor.
        """
        if fit.extractor != self.sha256:
            raise ConfigError(
                f"the gallery was fitted with extractor {fit.extractor[:12]}…, "
                f"this run uses {self.name} ({self.sha256[:12]}…); choose the gallery or the extractor that belongs to it"
            )
        return replace(self, whitening=fit.whitening(self.constants), calibration=fit.calibration or UNCALIBRATED, fit=fit)


def space(
    name: str, sha256: str, pixels: PixelRecipe, extractor: Extractor, constants: Constants, calibration: Calibration = UNCALIBRATED
) -> FeatureSpace:
    """A space without a gallery."""
    return FeatureSpace(name, sha256, pixels, extractor, constants, whitening_of(constants), calibration)


def open_space(bundle: Bundle, pool: EnginePool | None = None) -> FeatureSpace:
    """Open the space of a bundle of kind "extractor". `pool` runs its network, if it has one."""
    if bundle.kind != "extractor":
        raise BundleError(f"{bundle.folder} is a {bundle.kind}, not an extractor; name the folder of an extractor")
    pixels = PixelRecipe(**bundle.get("pixels", dict))
    kind = plugins.match(__package__, bundle, f"extractor {bundle.name!r}")
    if kind is None:
        raise BundleError(f"{bundle.folder}: this runtime has no extractor of family {bundle.family[:80]!r}; update resynth-fast")
    extractor: Extractor = kind.open(bundle, pool, pixels.working_size)
    constants = _constants(bundle)
    if len(constants.mean) != extractor.dimension:
        raise BundleError(
            f"{bundle.folder}: constants have {len(constants.mean)} columns, the extractor {extractor.dimension}; export again"
        )
    calibration = Calibration.from_json(bundle.get("calibration", dict), str(bundle.folder))
    opened = space(bundle.name, bundle.sha256, pixels, extractor, constants, calibration)
    return replace(opened, domain=open_domain(bundle, extractor.dimension))


def pack(constants: Constants) -> bytes:
    """Constants as the bytes of a safetensors file; directions are stored in 16 bits."""
    arrays = {name: getattr(constants, name).astype(np.float32) for name in ("mean", "scale")}
    arrays |= {"values": constants.foreign.values.astype(np.float32), "vectors": constants.foreign.vectors.astype(np.float16)}
    # Rows of one family may differ in length by orders of magnitude, so unit rows are stored in 16 bits, and lengths beside them.
    for family, rows in constants.nuisance.items():
        lengths = np.linalg.norm(rows, axis=1)
        arrays |= {
            NUISANCE + family: (rows / lengths[:, None]).astype(np.float16),
            NUISANCE + family + LENGTH: lengths.astype(np.float32),
        }
    return files.pack_arrays(arrays)


def unpack(content: bytes) -> Constants:
    """The constants in the bytes that `pack` made. ValueError if an array is missing, not finite, or not what `pack` writes."""
    arrays = {name: array.astype(np.float64) for name, array in files.unpack_arrays(content).items()}
    if missing := {"mean", "scale", "vectors", "values"} - set(arrays):
        raise ValueError(f"there is no array {', '.join(sorted(missing))}")
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise ValueError("a number is not finite")
    nuisance = {}
    for name in sorted(arrays):
        if name.startswith(NUISANCE) and not name.endswith(LENGTH):
            family, rows = name.removeprefix(NUISANCE), arrays[name]
            check_orthonormal(rows, f"degradation {family!r}")
            nuisance[family] = rows * arrays[name + LENGTH][:, None]
    check_orthonormal(arrays["vectors"].T, "covariance within cells")
    return Constants(arrays["mean"], arrays["scale"], Moment(arrays["vectors"], arrays["values"]), nuisance)


def _constants(bundle: Bundle) -> Constants:
    try:
        return unpack(bundle.constants.read())
    except (KeyError, ValueError) as error:
        raise BundleError(f"{bundle.folder}: constants cannot be used ({error}); export the extractor again") from error
