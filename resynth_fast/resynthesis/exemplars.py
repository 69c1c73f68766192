"""How sources that cannot be run are judged by the pictures that were given for them.

Given pictures show something else than the probe, and their distance to it is mostly that. Beside candidates that can be
run, a sample of them is therefore captioned and resynthesised by those: how a source differs from what they make of the
same captions is a gallery in small, whose prior judges it. Among given pictures alone, those nearest to the probe in
content are its references.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ..arrays import Doubles
from ..candidates import Candidate, ExemplarCandidate, GenerativeCandidate
from ..candidates.folder import SelectedExemplars
from ..captioners import Captioner
from ..errors import ConfigError
from ..extractors.space import FeatureSpace
from ..scoring.prior import Prior, gallery_prior
from ..types import Picture, Pixels, Request

MIN_GENERATORS = 2
"""The fewest candidates that can be run: what two of them have in common is content, what one does is not."""


class ExemplarReferences:
    """The given pictures of all candidates that have some; without any, it only passes on what the gallery says."""

    def __init__(
        self,
        candidates: Mapping[str, Candidate],
        captioner: Captioner,
        space: FeatureSpace,
        make: Callable[[Sequence[str]], Mapping[Request, Pixels]],
    ) -> None:
        """`make`: one picture of each prompt by each candidate that can be run. ConfigError for a source that the gallery's fit lacks."""
        self._names, self._captioner, self._space, self._make = list(candidates), captioner, space, make
        self.sources = {
            name: candidate.describe(space) for name, candidate in candidates.items() if isinstance(candidate, ExemplarCandidate)
        }
        makers = [name for name, candidate in candidates.items() if isinstance(candidate, GenerativeCandidate)]
        self._unequal = bool(self.sources) and 0 < len(makers) < MIN_GENERATORS
        self._by_prior = bool(self.sources) and len(makers) >= MIN_GENERATORS
        self._priors: dict[str, Prior] = {}
        for name in self.sources:
            if space.fit and name not in space.fit.names:
                raise ConfigError(f"the gallery's fit has no pictures of {name}; add them to the gallery, or do without the fit")

    def prior(self, probe: Picture) -> Prior:
        """What is known of the candidates before the probe is looked at, which takes no part in it itself."""
        if not self._by_prior or self._space.fit:
            return self._space.prior(self._names)
        own = probe.sha256 if self._holding(probe) else ""
        if own not in self._priors:
            self._priors[own] = self._fitted(own)
        return self._priors[own]

    def select(self, probe: Picture, point: Doubles, count: int) -> list[SelectedExemplars]:
        """The pictures that stand for each source beside the probe at `point` (d,), and their points where these are references."""
        if self._by_prior:
            return [replace(found, points=found.points[:0]) for found in (s.sample(probe.sha256) for s in self.sources.values())]
        return [source.nearest(point, count, probe.sha256) for source in self.sources.values()]

    def warnings(self, probe: Picture) -> Iterator[str]:
        for name in self._holding(probe):
            yield f"the probe is one of the pictures given for {name}; it was not compared with itself"
        if self._unequal:
            yield f"scores are unreliable: to tell source and content of given pictures apart, {MIN_GENERATORS} candidates that can be run are needed, or none"

    def _holding(self, probe: Picture) -> list[str]:
        return [name for name, source in self.sources.items() if source.holds(probe.sha256)]

    def _fitted(self, probe: str) -> Prior:
        pictures: list[tuple[Pixels, str, str]] = []
        for name, source in self.sources.items():
            shown = source.sample(probe).pixels()
            pictures += [(pixels, name, caption) for pixels, caption in zip(shown, self._captioner.caption(shown), strict=True)]
        captions = list(dict.fromkeys(caption for *_, caption in pictures))
        pictures += [(pixels, request.candidate, request.prompt) for request, pixels in self._make(captions).items()]
        points = self._space([pixels for pixels, *_ in pictures])
        generator = np.array([self._names.index(name) for _, name, _ in pictures])
        prompt = np.array([captions.index(caption) for *_, caption in pictures])
        return gallery_prior(points, generator, prompt, range(len(self._names)))
