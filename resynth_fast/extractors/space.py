"""The feature space of an extractor bundle: pixel normalisation, features, scaling and whitening, in that order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load

from ..bundle import Bundle
from ..errors import BundleError
from ..pixels import PixelRecipe
from ..recipe import Constants, Doubles
from ..types import Pixels
from . import Extractor
from .texture import TextureExtractor


@dataclass(frozen=True, slots=True)
class Calibration:
    """What turns scores into probabilities and thresholds; measured once, on the pictures that `source` names."""

    temperature: float
    unknown_below: float
    """Consistency under which 5 % of the candidates' own pictures fall."""
    source: str


@dataclass(frozen=True, slots=True)
class FeatureSpace:
    """Pictures of any size to points in one space."""

    name: str
    sha256: str
    tap: str
    pixels: PixelRecipe
    extractor: Extractor
    constants: Constants
    calibration: Calibration

    def __call__(self, pictures: Sequence[Pixels]) -> Doubles:
        """n pictures (H, W, 3) uint8 → (n, d) float64, each independent of the others; BundleError if not finite."""
        return self.constants.project(self.features(pictures))

    def features(self, pictures: Sequence[Pixels]) -> npt.NDArray[np.float32]:
        """n pictures → (n, d) float32, unscaled: what the constants are fitted on."""
        features = self.extractor.extract(np.stack([self.pixels.normalise(picture) for picture in pictures]))
        if not np.isfinite(features).all():
            raise BundleError(f"{self.name}: a feature is not finite; verify or export the extractor again")
        return features


def open_space(bundle: Bundle) -> FeatureSpace:
    """The space of a bundle of kind "extractor"."""
    if bundle.kind != "extractor" or bundle.family != "texture":
        raise BundleError(f"{bundle.folder}: {bundle.kind} of family {bundle.family!r}; this runtime extracts with family 'texture'")
    settings, calibration = bundle.get("pixels", dict), bundle.get("calibration", dict)
    recipe = PixelRecipe(**settings)
    extractor = TextureExtractor(recipe.working_size)
    arrays = {name: array.astype(np.float64) for name, array in load(bundle.constants.read()).items()}
    try:
        constants = Constants(**{name: arrays[name] for name in ("mean", "scale", "vectors", "values")})
    except KeyError as error:
        raise BundleError(f"{bundle.folder}: constants lack {error}; export the extractor again") from error
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise BundleError(f"{bundle.folder}: constants are not finite; export the extractor again")
    if len(constants.mean) != extractor.dimension:
        raise BundleError(
            f"{bundle.folder}: constants have {len(constants.mean)} columns, the extractor {extractor.dimension}; export again"
        )
    return FeatureSpace(bundle.name, bundle.sha256, "texture", recipe, extractor, constants, Calibration(**calibration))
