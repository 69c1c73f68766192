"""The first stage: captions and features of the probes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import images
from ..captioners import Captioner, choice
from ..devices.base import CPU, Device
from ..engines.pool import EnginePool
from ..extractors.domain import of_captioner
from ..extractors.space import FeatureSpace
from ..images import copies, perturbations
from ..options import Options
from ..scheduler import EngineRef
from ..types import Array, Caption, Doubles, Floats, Part, Picture, Pixels, PreparedProbe
from .timing import StageTimer


@dataclass(frozen=True, slots=True)
class PreparedProbes:
    """The prepared probes of one call."""

    probes: Sequence[PreparedProbe]
    timer: StageTimer
    """Of the call, from its first stage to its last."""
    spent_s: float
    """Seconds that preparation took, which count towards the deadline."""

    @property
    def captions(self) -> list[str]:
        """The text of each probe's caption."""
        return [probe.caption.text for probe in self.probes]

    @property
    def points(self) -> list[Doubles]:
        """Whitened features (d,) of each probe."""
        return [probe.point for probe in self.probes]

    @property
    def perturbed(self) -> list[Sequence[Doubles]]:
        """Whitened features (d,) of each probe's perturbed copies."""
        return [probe.perturbed for probe in self.probes]


class FeatureExtraction:
    """A feature space whose seconds per picture are entered in the pool's cost table, as those of engines are."""

    def __init__(self, space: FeatureSpace, pool: EnginePool) -> None:
        self.space = space
        self._pool = pool
        self._ref = EngineRef(space.sha256, size_bytes=0)

    def __call__(self, pictures: Sequence[Pixels] | Array, device: Device[Any] = CPU) -> Floats:
        """Raw features (n, d) float32 on the host of n pictures on `device`; see `FeatureSpace.features`."""
        start = time.perf_counter()
        features = self.space.features(pictures, device)
        self._pool.costs.ran(self._ref, len(pictures), time.perf_counter() - start)
        return features

    def forecast_s(self, pictures: int) -> float:
        """Seconds that the features of so many pictures will take; 0 before the first measurement, so that no guess stops a run."""
        costs = self._pool.costs
        return pictures * costs.of(self._ref).row_s if self._ref in costs else 0.0


class Preparation:
    """Captions probes and extracts their features. It may run while the pictures of earlier probes are generated."""

    def __init__(self, captioner: Captioner | None, features: FeatureExtraction, pool: EnginePool, options: Options) -> None:
        """`captioner` None: nothing will be resynthesised, and only the user's text or the prompt in the file is a caption."""
        self._captioner, self._features, self._pool, self._options = captioner, features, pool, options
        self.caption_domain = of_captioner(captioner) if captioner else None
        """The pictures that the captioner knows; None where it does not say."""

    def __call__(self, probes: Iterable[str | Path | Picture], timer: StageTimer | None = None) -> PreparedProbes:
        """Read `probes` unless they are read, caption them and extract their features. The time is added to `timer`."""
        start, timer = time.monotonic(), timer or StageTimer()
        with timer.stage("read"):
            pictures = [probe if isinstance(probe, Picture) else images.read(probe) for probe in probes]
        with timer.stage("caption"):
            captions = choice.captions(self._options.caption, pictures, self._captioner) if pictures else []
        with timer.stage("features"):
            prepared = self._pool.lanes.map(lambda row: self._prepared(*row), zip(pictures, captions, strict=True))
        return PreparedProbes(prepared, timer, time.monotonic() - start)

    def _prepared(self, picture: Picture, caption: Caption) -> PreparedProbe:
        changed = [perturbations.perturbation(name)(picture.pixels) for name in perturbations.MILD]
        features = self._features([picture.pixels, *changed])
        point, *perturbed = self._features.space.points(features)
        foreign_to = tuple(self._foreign_to(picture, caption, features[0]))
        return PreparedProbe(picture, caption, features[0], point, perturbed, copies.windows(picture.pixels), features[1:], foreign_to)

    def _foreign_to(self, picture: Picture, caption: Caption, features: Floats) -> Iterator[Part]:
        """The parts that do not know such pictures. A captioner that did not write the caption is not asked.

        Sources that cannot be run are judged in a space, and by a calibration, that is fitted on their own pictures.
        """
        if self._captioner is None:
            return
        if self.caption_domain and caption.by == self._captioner.name and self.caption_domain.outside(picture.pixels):
            yield "captioner"
        if self._features.space.domain and self._features.space.domain.outside(features):
            yield "extractor"
