"""The pictures that a captioner or an extractor knows: how far a picture is from those it was fitted on. Pure, float64.

Fitted pictures lie around several centres: the clean ones, and those of each degradation. Around the centres they have one
covariance, kept by its leading eigenvectors. A distance to the nearest centre follows (Lee, Lee, Lee & Shin, NeurIPS 2018), with a
term for the directions beyond the eigenvectors (Wang, Li, Feng & Zhang, CVPR 2022): photographs leave the plane that drawings span.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..types import Doubles
from .whitening import Moment, check_orthonormal, moment

Features = npt.NDArray[np.floating]

RANK = 48
ROWS = 2000
"""Pictures, at most, that the covariance is fitted on."""
LEAST_BEYOND = 1e-3
"""Share of the covariance beyond the eigenvectors, at least: directions in 16 bits leave about so much."""
FALSE_ALARMS = 0.01
"""Share of held-out pictures of each degradation that lie outside, at most."""


@dataclass(frozen=True, slots=True)
class Domain:
    """Where the features (d columns) of fitted pictures lie."""

    mean: Doubles
    """(d,)"""
    scale: Doubles
    """(d,) standard deviation about the centres, times √d"""
    centres: Doubles
    """(k, d) mean of the clean pictures and of each degradation, scaled"""
    spread: Moment
    """Covariance about the centres, of trace 1."""
    limit: float
    """Distance beyond which a picture is outside."""

    def distance(self, features: Features) -> Doubles:
        """(n, d) features → (n,): distance to the nearest centre, squared, about 1 for fitted pictures.

        Half of it is measured along the eigenvectors, half across them, each relative to what fitted pictures have there.
        """
        scaled = (features.astype(np.float64) - self.mean) / self.scale
        rank, beyond = self.spread.vectors.shape[1], max(1 - float(self.spread.values.sum()), LEAST_BEYOND)
        distances = []
        for centre in self.centres:
            offset = scaled - centre
            along = offset @ self.spread.vectors
            across = (offset**2).sum(1) - (along**2).sum(1)
            distances.append(((along**2 / self.spread.values).sum(1) / rank + across / beyond) / 2)
        nearest: Doubles = np.min(distances, axis=0)
        return nearest

    def outside(self, features: Features) -> bool:
        """Whether one picture's features (d,) are farther than fitted pictures."""
        return bool(self.distance(features[None])[0] > self.limit)

    @classmethod
    def fit(cls, fitted: Mapping[str, Features], held_out: Mapping[str, Features]) -> Domain:
        """The domain of pictures, (n, d) features by degradation; its limit by `held_out` pictures, (m, d) by degradation.

        At most FALSE_ALARMS of the held-out pictures of each degradation are outside.
        """
        means = {name: rows.mean(0, dtype=np.float64) for name, rows in fitted.items()}
        offsets = np.concatenate([rows - means[name] for name, rows in fitted.items()])
        deviation = offsets.std(0)
        deviation += 1e-2 * np.median(deviation) + 1e-9  # a nearly constant column must not be amplified
        mean, scale = next(iter(means.values())), deviation * np.sqrt(len(deviation))
        kept = np.random.default_rng(0).permutation(len(offsets))[:ROWS]
        spread = moment(offsets[kept] / scale, min(RANK, len(kept) // 4, len(deviation) // 4))
        unlimited = cls(mean, scale, np.stack([(m - mean) / scale for m in means.values()]), spread, 0.0)
        stored = cls.restored(unlimited.arrays())  # the limit holds for what is stored, in 16 bits
        worst = max(float(np.quantile(stored.distance(rows), 1 - FALSE_ALARMS)) for rows in held_out.values())
        return replace(stored, limit=float(np.float32(worst)))

    def arrays(self) -> dict[str, npt.NDArray[np.floating]]:
        """The arrays that a bundle stores; directions and centres in 16 bits."""
        return {
            "mean": self.mean.astype(np.float32),
            "scale": self.scale.astype(np.float32),
            "centres": (self.centres * np.sqrt(len(self.mean))).astype(np.float16),
            "vectors": self.spread.vectors.astype(np.float16),
            "values": self.spread.values.astype(np.float32),
            "limit": np.array([self.limit], np.float32),
        }

    @classmethod
    def restored(cls, arrays: Mapping[str, npt.NDArray[np.floating]]) -> Domain:
        """The domain with these `arrays`. ValueError if one is missing, not finite, or not what `arrays` gives."""
        if missing := {"mean", "scale", "centres", "vectors", "values", "limit"} - set(arrays):
            raise ValueError(f"there is no array {', '.join(sorted(missing))}")
        values = {name: array.astype(np.float64) for name, array in arrays.items()}
        if not all(np.isfinite(array).all() for array in values.values()):
            raise ValueError("a number is not finite")
        columns, rank = len(values["mean"]), len(values["values"])
        shapes = {"scale": (columns,), "vectors": (columns, rank), "limit": (1,), "centres": (len(values["centres"]), columns)}
        for name, shape in shapes.items():
            if values[name].shape != shape:
                raise ValueError(f"array {name} is {values[name].shape}, not {shape}")
        if not ((values["scale"] > 0).all() and (values["values"] > 0).all() and values["values"].sum() < 1 and len(values["centres"])):
            raise ValueError("a scale or a variance is not above 0, or there is no centre")
        check_orthonormal(values["vectors"].T, "domain")
        spread = Moment(values["vectors"], values["values"])
        return cls(values["mean"], values["scale"], values["centres"] / np.sqrt(columns), spread, float(values["limit"][0]))
