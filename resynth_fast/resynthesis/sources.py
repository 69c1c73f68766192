"""Where the pictures of one call come from: the gallery, if it kept them, else the candidates."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..arrays import Array, Doubles
from ..devices.base import Device
from ..extractors.space import FeatureSpace
from ..options import LOOK_UP
from ..timing import StageTimer
from ..types import Pixels, Request
from .executor import Executor, Features, Generated

if TYPE_CHECKING:
    from ..gallery.cache import ResynthesisCache


class ReferenceSource:
    """Requests to points, described once each; what was made of them stays until the call is over."""

    def __init__(
        self,
        executor: Executor,
        space: FeatureSpace,
        cache: ResynthesisCache | None,
        policy: str,
        timers: Mapping[str, StageTimer],
        deadline: float | None = None,
        features_s: float = 0.0,
    ) -> None:
        """`deadline`: a time of `time.monotonic`; `features_s`: what describing a picture takes."""
        self.pictures: dict[Request, Pixels] = {}
        self.points: dict[Request, Doubles] = {}
        self.looked_up: set[Request] = set()
        self.forecast_s = 0.0
        """What making all that was not looked up was thought to take."""
        self._executor, self._space, self._cache, self._policy = executor, space, cache, policy
        self._timers, self._deadline, self._features_s = timers, deadline, features_s
        self._lock = threading.Lock()

    def __call__(self, wanted: Sequence[Request]) -> Mapping[Request, Doubles]:
        """Points (d,) of all that there is so far; those that time was too short for, or that must not be made, are missing."""
        new = [request for request in wanted if request not in self.points]
        with self._timers["generate"]:
            self._look_up(new)
            made = self._make([request for request in new if request not in self.looked_up])
        if made:
            with self._timers["features"]:
                features = np.stack([found.features for found in made.values()])
                self.points.update(zip(made, self._space.points(features), strict=True))
            self.pictures.update({request: found.pixels for request, found in made.items()})
            if self._cache and not self._executor.pool.fallbacks:  # what ran otherwise is not what the key says
                self._cache.put({request: found.pixels for request, found in made.items()}, features)
        return self.points

    def _look_up(self, wanted: Sequence[Request]) -> None:
        if self._cache and (found := self._cache.get(wanted)):
            features = np.stack([known.features for known in found.values()])
            self.points.update(zip(found, self._space.points(features), strict=True))
            self.pictures.update({request: known.pixels for request, known in found.items()})
            self.looked_up.update(found)

    def _make(self, wanted: Sequence[Request]) -> dict[Request, Generated]:
        if self._cache:
            self.forecast_s += self._executor.forecast(wanted)
        if self._policy == LOOK_UP or not wanted:
            return {}
        return self._executor(wanted, describe=self._describe, deadline=self._deadline, features_s=self._features_s)

    def _describe(self, pictures: Sequence[Pixels] | Array, device: Device[Any]) -> Features:
        """Where they were made, by the thread that made them, so that others are made meanwhile; counted as a stage of its own."""
        with StageTimer() as watch:
            features = self._space.features(pictures, device)
        with self._lock:
            ms = watch.ms / self._executor.pool.lanes.count
            self._timers["features"].ms += ms
            self._timers["generate"].ms -= ms
        return features
