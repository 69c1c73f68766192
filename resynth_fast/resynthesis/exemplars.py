"""How a source that cannot generate is judged, by exemplars: pictures known to come from it.

Exemplars show something else than the probe, and their distance to it is mostly that difference in content. If at least
two candidates can generate, a sample of the exemplars is therefore captioned and resynthesised by these: how a source
differs from their pictures of the same captions is a small gallery, and its prior judges the source. If no candidate can
generate, a source is judged by all its exemplars (see `source_judgement.py`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np

from ..candidates import Candidate, ExemplarCandidate
from ..candidates.folder import SelectedExemplars
from ..captioners import Captioner
from ..errors import ConfigError
from ..extractors.space import FeatureSpace
from ..images.copies import Match
from ..scoring.prior import Prior, gallery_prior
from ..types import Pixels, PreparedProbe
from .executor import Executor
from .source_judgement import SourceJudgement

MIN_GENERATORS = 2
"""Minimum number of generative candidates: content is estimated as what at least two of them share."""


class ExemplarReferences:
    """The exemplars of all candidates that have some; without any, the prior is the gallery's."""

    def __init__(self, candidates: Mapping[str, Candidate], captioner: Captioner, space: FeatureSpace, executor: Executor) -> None:
        """ConfigError for pictures that are not at hand, which candidates that can generate cannot resynthesise."""
        self.names, self._captioner, self._space, self._executor = list(candidates), captioner, space, executor
        self.sources = {
            name: candidate.describe(space) for name, candidate in candidates.items() if isinstance(candidate, ExemplarCandidate)
        }
        self.alone = SourceJudgement(list(self.sources.values()), space) if self.sources and not executor.candidates else None
        """How probes are judged where no candidate can generate."""
        for name, source in self.sources.items():
            if not self.alone and not all(path for _, path in source.files):
                raise ConfigError(
                    f"candidate {name} is of a gallery, which holds features and no pictures, so the candidates that generate cannot "
                    f"resynthesise it; name a folder of its pictures, {name}=DIR, or leave out {', '.join(executor.candidates)}"
                )
        self._unreliable = bool(self.sources) and 0 < len(executor.candidates) < MIN_GENERATORS
        self._by_prior = bool(self.sources) and len(executor.candidates) >= MIN_GENERATORS
        self._priors: dict[tuple[tuple[str, frozenset[int]], ...], Prior] = {}
        self._points = {name: space.points(source.features) for name, source in self.sources.items()} if self._unreliable else {}

    def copies(self, probe: PreparedProbe) -> dict[str, list[Match]]:
        """Copies of the probe among the exemplars of each source."""
        return {name: source.given(probe.picture.sha256, probe.signatures) for name, source in self.sources.items()}

    def prior(self, copies: Mapping[str, Sequence[Match]]) -> Prior:
        """Prior of the candidates for the probe with these copies, which take no part in it."""
        if not self._by_prior or self._space.fit:
            return self._space.prior(self.names)
        left_out = tuple((name, rows) for name in self.sources if (rows := _rows(copies, name)))
        if left_out not in self._priors:
            self._priors[left_out] = self._fitted(dict(left_out))
        return self._priors[left_out]

    def select(self, probe: PreparedProbe, count: int, copies: Mapping[str, Sequence[Match]]) -> dict[str, SelectedExemplars]:
        """The exemplars that represent each source beside `probe`, without copies of it.

        They are its `count` references, or a sample that has no points (0, d).
        """
        left_out = {name: _rows(copies, name) for name in self.sources}
        if self.alone:
            return self.alone.nearest(probe, count, left_out)
        if self._by_prior:
            return {name: source.sample(left_out[name]) for name, source in self.sources.items()}
        return {name: source.nearest(self._points[name], probe.point, count, left_out[name]) for name, source in self.sources.items()}

    def warnings(self) -> Iterator[str]:
        """Reasons to trust every answer less."""
        if self.alone:
            yield (
                "sources are told apart by all that differs between their pictures: they should show the same things. A picture by another "
                "source that shows what only one of them shows may be named for that one"
            )
        if self._unreliable:
            yield (
                f"scores are unreliable: telling the source of an exemplar from its content takes {MIN_GENERATORS} candidates "
                "that can generate, or none"
            )

    def _fitted(self, left_out: Mapping[str, Collection[int]]) -> Prior:
        pictures: list[tuple[Pixels, str, str]] = []
        for name, source in self.sources.items():
            exemplars = source.sample(left_out.get(name, ())).pixels()
            pictures += [(pixels, name, caption) for pixels, caption in zip(exemplars, self._captioner.caption(exemplars), strict=True)]
        captions = list(dict.fromkeys(caption for *_, caption in pictures))
        resyntheses = self._executor.make(captions, 1)
        pictures += [(pixels, request.candidate, request.prompt) for request, pixels in resyntheses.items()]
        points = self._space([pixels for pixels, *_ in pictures])
        generator = np.array([self.names.index(name) for _, name, _ in pictures])
        prompt = np.array([captions.index(caption) for *_, caption in pictures])
        return gallery_prior(points, generator, prompt, range(len(self.names)))


def _rows(copies: Mapping[str, Sequence[Match]], name: str) -> frozenset[int]:
    return frozenset(match.row for match in copies.get(name, ()))
