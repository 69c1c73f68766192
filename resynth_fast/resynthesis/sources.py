"""The source of a call's resyntheses: the gallery's cache if it holds them, else the candidates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..options import LOOK_UP
from ..types import Doubles, Pixels, Request
from .executor import Executor, Generated
from .preparation import FeatureExtraction
from .timing import Deadline, StageTimer

if TYPE_CHECKING:
    from ..gallery.cache import ResynthesisCache


class ReferenceSource:
    """Fetches the whitened features of requested pictures, each once; it keeps the pictures until the call is over."""

    def __init__(
        self, executor: Executor, features: FeatureExtraction, cache: ResynthesisCache | None, timer: StageTimer, deadline: Deadline
    ) -> None:
        self.pictures: dict[Request, Pixels] = {}
        self.points: dict[Request, Doubles] = {}
        self.looked_up: set[Request] = set()
        """Requests that the cache answered."""
        self.forecast_s = 0.0
        """Forecast of generating all others, in seconds."""
        self._executor, self._features, self._cache = executor, features, cache
        self._timer, self._deadline = timer, deadline

    def __call__(self, requests: Sequence[Request]) -> Mapping[Request, Doubles]:
        """Points (d,) of all requests of the call so far, except those that time was too short for or that must not be generated."""
        new = [request for request in requests if request not in self.points]
        with self._timer.stage("generate"):
            self._look_up(new)
            generated = self._generate([request for request in new if request not in self.looked_up])
        if generated:
            pictures = {request: result.pixels for request, result in generated.items()}
            with self._timer.stage("features"):
                features = np.stack([result.features for result in generated.values()])
                self.points.update(zip(generated, self._features.space.points(features), strict=True))
            self.pictures.update(pictures)
            if self._cache and not self._executor.pool.fallbacks:  # a fallback's pictures are not those that the key stands for
                self._cache.put(pictures, features)
        return self.points

    def _look_up(self, requests: Sequence[Request]) -> None:
        if self._cache and (cached := self._cache.get(requests)):
            features = np.stack([resynthesis.features for resynthesis in cached.values()])
            self.points.update(zip(cached, self._features.space.points(features), strict=True))
            self.pictures.update({request: resynthesis.pixels for request, resynthesis in cached.items()})
            self.looked_up.update(cached)

    def _generate(self, requests: Sequence[Request]) -> dict[Request, Generated]:
        if self._cache:
            self.forecast_s += self._executor.forecast_s(requests)
        if self._executor.options.policy == LOOK_UP or not requests:
            return {}
        return self._executor(requests, features=self._features, deadline=self._deadline, timer=self._timer)
