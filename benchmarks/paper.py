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
    """The attribution of one probe."""

    label: str
    """The candidate ranked first."""
    pictures: Mapping[str, Sequence[Pixels]]
    """Every candidate's references."""
    distances: Mapping[str, float] = field(default_factory=dict)
    """Every candidate's smallest distance; empty for a contestant that ranks by scores."""
    caption: str = ""
    """The prompt of the references; empty if the contestant was given it."""


def nearest(space: FeatureSpace, probe: Pixels, pictures: Mapping[str, Sequence[Pixels]]) -> Answer:
    """Choose the candidate whose nearest picture is nearest to the probe."""
    from scipy.spatial import distance  # imported here, because it would count in the memory of other contestants

    feature = space([probe])[0]
    distances = {name: min(float(distance.cosine(feature, space([p])[0])) for p in own) for name, own in pictures.items()}
    return Answer(min(distances, key=distances.__getitem__), pictures, distances)
