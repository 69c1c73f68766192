"""What given pictures say of a source that cannot be run: how they differ from what the others make of the same captions.

Given pictures show something else than the probe, and their distance to it is mostly that. So a few of them are
captioned and resynthesised by the candidates that can be run: a gallery in small, whose prior then judges the source.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from . import recipe
from .candidates.folder import GivenPictures
from .captioners import Captioner
from .extractors.space import FeatureSpace
from .recipe import Prior
from .types import Pixels, Request

MAKERS = 2
"""The fewest candidates that can be run: what two of them have in common is content, what one does is not."""


class Contrast:
    """Priors of all candidates by the pictures that were given for some; made at most once for each probe that is one of these."""

    def __init__(
        self,
        names: Sequence[str],
        given: Mapping[str, GivenPictures],
        captioner: Captioner,
        make: Callable[[Sequence[str]], Mapping[Request, Pixels]],
        space: FeatureSpace,
    ) -> None:
        """`make`: one picture of each prompt by each candidate that can be run."""
        self._names, self._given, self._captioner, self._make, self._space = list(names), given, captioner, make, space
        self._priors: dict[str, Prior] = {}

    def prior(self, probe: str) -> Prior:
        """For a probe with this SHA-256, which never takes part."""
        own = probe if any(given.holds(probe) for given in self._given.values()) else ""
        if own not in self._priors:
            self._priors[own] = self._fitted(own)
        return self._priors[own]

    def _fitted(self, probe: str) -> Prior:
        pictures: list[tuple[Pixels, str, str]] = []
        for given in self._given.values():
            shown = given.sample(probe).pixels()
            pictures += [(pixels, given.name, caption) for pixels, caption in zip(shown, self._captioner.caption(shown), strict=True)]
        captions = list(dict.fromkeys(caption for *_, caption in pictures))
        pictures += [(pixels, request.candidate, request.prompt) for request, pixels in self._make(captions).items()]
        points = self._space([pixels for pixels, *_ in pictures])
        generator = np.array([self._names.index(name) for _, name, _ in pictures])
        prompt = np.array([captions.index(caption) for *_, caption in pictures])
        return recipe.prior(points, generator, prompt, range(len(self._names)))
