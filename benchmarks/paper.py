"""The paper's comparison: argmin over candidates of the distance between features (Bongini et al., arXiv 2510.24278)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from resynth_fast.extractors.space import FeatureSpace

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Answer:
    """Of one probe: the first candidate, the pictures drawn, and every candidate's least distance where distances decided."""

    label: str
    pictures: Mapping[str, Sequence[Pixels]]
    distances: Mapping[str, float] = field(default_factory=dict)
    caption: str = ""
    """What was drawn, where the contestant found it itself."""


def nearest(space: FeatureSpace, probe: Pixels, pictures: Mapping[str, Sequence[Pixels]]) -> Answer:
    """The candidate with the nearest of its `pictures`."""
    from scipy.spatial import distance  # only here: who merely imports this module is measured without it

    feature = space([probe])[0]
    distances = {name: min(float(distance.cosine(feature, space([picture])[0])) for picture in made) for name, made in pictures.items()}
    return Answer(min(distances, key=distances.__getitem__), pictures, distances)
