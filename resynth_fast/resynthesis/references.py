"""Builds the references of a call's probes: resyntheses, gallery pictures of similar content, and exemplars.

Resyntheses are fetched all at once, or round by round where a race or a limit may end early.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from math import inf
from typing import TYPE_CHECKING

import numpy as np

from ..candidates import Candidate, GenerativeCandidate
from ..captioners import Captioner
from ..engines.pool import EnginePool
from ..errors import ConfigError
from ..images.copies import GivenPictures, Match, named
from ..options import GENERATE, LOOK_UP, Options
from ..scoring.calibration import UNCALIBRATED, Calibration
from ..scoring.prior import Prior
from ..types import Doubles, KnownCopy, PreparedProbe, Request, Resynthesis
from .executor import Executor
from .exemplars import ExemplarReferences
from .preparation import FeatureExtraction, PreparedProbes
from .race import REACH, Race
from .sources import ReferenceSource
from .timing import Deadline

if TYPE_CHECKING:
    from ..candidates.folder import SelectedExemplars
    from ..gallery.cache import ResynthesisCache


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeReferences:
    """The pictures that one probe is compared with, by candidate, and their whitened features."""

    points: Mapping[str, Doubles]
    """(K, d) of each candidate, in the candidates' order: its resyntheses, similar gallery pictures, or exemplars"""
    prior: Prior
    """Prior of the candidates, which holds before the references are looked at."""
    resyntheses: Mapping[str, tuple[Resynthesis, ...]]
    """Pictures that each generative candidate generated from the probe's caption."""
    exemplars: Mapping[str, SelectedExemplars]
    """Pictures that represent each candidate that cannot generate."""
    stopped_by: str = ""
    """The limit that ended generation before a decision; "" if none did."""
    looked_up: int = 0
    """Number of resyntheses that came from the gallery."""
    similar_content: tuple[str, ...] = ()
    """Candidates without a resynthesis, whose references are gallery pictures of similar content."""
    forecast_s: float | None = None
    """Forecast of generating all that the gallery lacks, in seconds, for all probes of the call; None without a gallery."""
    judged_by: Mapping[str, int] = field(default_factory=dict)
    """Number of pictures of each source, where no candidate can generate and all pictures of a source judge together."""
    warnings: tuple[str, ...] = ()
    known_copies: tuple[KnownCopy, ...] = ()
    """Given pictures of which the probe is a copy, and which are no references."""

    @property
    def guidance(self) -> list[tuple[float, ...]]:
        """Guidance of the references of each candidate, in the candidates' order; 1 for pictures that were not generated for the probe."""
        made = {name: tuple(picture.guidance for picture in pictures) for name, pictures in self.resyntheses.items() if pictures}
        return [made.get(name, (1.0,) * len(rows)) for name, rows in self.points.items()]

    @property
    def counts(self) -> Mapping[str, int]:
        """Number of references of each generative candidate."""
        return {name: len(self.points[name]) for name in self.resyntheses}

    @property
    def complete(self) -> bool:
        """Whether every generative candidate has a reference: one without can be neither named nor excluded."""
        return all(self.counts.values())


class ReferenceBuilder:
    """Builds the references of an attributor's probes.

    ConfigError if the options do not fit the candidates, or the gallery.
    """

    def __init__(
        self,
        candidates: Mapping[str, Candidate],
        captioner: Captioner,
        features: FeatureExtraction,
        pool: EnginePool,
        options: Options,
        cache: ResynthesisCache | None = None,
        given: GivenPictures | None = None,
        own_calibration: Calibration | None = None,
    ) -> None:
        generators = {name: candidate for name, candidate in candidates.items() if isinstance(candidate, GenerativeCandidate)}
        self.executor = Executor(generators, pool, options)
        self.exemplars = ExemplarReferences(candidates, captioner, features.space, self.executor)
        self.features = features
        self.space = features.space
        self.options = options
        self.cache = cache
        self.calibration = self._calibration([candidate.sha256 for candidate in candidates.values()], own_calibration)
        """What scores by these references are judged by."""
        self.given = given or GivenPictures(())
        """The given pictures of the gallery in use."""
        _check(
            options,
            list(candidates),
            len(generators),
            list(self.exemplars.sources),
            fitted=self.space.fit is not None,
            cached=cache is not None,
        )

    def __call__(self, prepared: PreparedProbes, deadline: Deadline) -> list[ProbeReferences]:
        """References of every probe, as many as can be generated before `deadline`. DeadlineError if a probe gets none in time."""
        probes, timer = prepared.probes, prepared.timer
        with timer.stage("features"):
            copies = [self.exemplars.copies(probe) for probe in probes]
            in_gallery = [self.given(probe.picture.sha256, probe.signatures) for probe in probes]
            exemplars = [self.exemplars.select(probe, self.options.references, found) for probe, found in zip(probes, copies, strict=True)]
        with timer.stage("generate"):
            priors = [self.exemplars.prior(found) for found in copies]
        source = ReferenceSource(self.executor, self.features, self.cache, timer, deadline)
        requests, stopped_by = self._fetch(prepared, source)
        references = [self._collect(*row, source) for row in zip(requests, stopped_by, priors, exemplars, strict=True)]
        references = self._fill_from_gallery(probes, references, in_gallery)
        return [
            replace(filled, warnings=tuple(self._warnings(filled, stored)), known_copies=named([*chain(*found.values()), *stored]))
            for filled, found, stored in zip(references, copies, in_gallery, strict=True)
        ]

    def _calibration(self, identities: Sequence[str], own: Calibration | None) -> Calibration:
        """A gallery's fit has its own; generators have the one measured with them: here, or when the extractor was made.

        It holds for the candidates that it was measured with, and for no others.
        """
        if self.exemplars.sources:
            return self.exemplars.alone.calibration if self.exemplars.alone else UNCALIBRATED
        stored = self.space.calibration
        if self.space.fit:
            return stored
        measured = [calibration for calibration in (own, stored) if calibration and calibration.holds_for(identities)]
        return measured[0] if measured else stored.elsewhere() if stored.measured else stored

    def race(self) -> Race:
        """The rules of a race. Without racing no candidate is ever out, and only the limits end it."""
        costs = self.executor.costs()
        return Race(
            names=tuple(costs),
            seeds=self.options.seeds,
            guidance=tuple(self.executor.guidance(name) for name in costs),
            within_trace=self.space.whitening.within_trace,
            calibrated=lambda count: self.calibration.at(count, self.options.steps),
            costs=np.array(list(costs.values())),
            reach=REACH if self.options.race else inf,
            max_pictures=self.options.max_pictures,
        )

    def _fetch(self, prepared: PreparedProbes, source: ReferenceSource) -> tuple[list[dict[str, list[Request]]], list[str]]:
        """Fetch each probe's resyntheses: the requests by candidate, and the limit that stopped each probe ("" for none)."""
        names, captions = tuple(self.executor.candidates), prepared.captions
        requests = [{name: self.executor.references(name, caption) for name in names} for caption in captions]
        if not self.options.limited:
            source([request for by_name in requests for part in by_name.values() for request in part])
            return requests, [""] * len(captions)
        races = self.race()(captions, prepared.points, [self.space.prior(names)] * len(captions), source)
        requests = [
            {name: part[:count] for (name, part), count in zip(by_name.items(), race.counts, strict=True)}
            for by_name, race in zip(requests, races, strict=True)
        ]
        return requests, [race.stopped_by for race in races]

    def _collect(
        self,
        requests: Mapping[str, Sequence[Request]],
        stopped_by: str,
        prior: Prior,
        exemplars: Mapping[str, SelectedExemplars],
        source: ReferenceSource,
    ) -> ProbeReferences:
        present = {name: [request for request in part if request in source.points] for name, part in requests.items()}
        empty = np.zeros((0, len(self.space.constants.mean)))
        points = {name: np.stack([source.points[r] for r in part]) if part else empty for name, part in present.items()}
        points |= {name: selected.points for name, selected in exemplars.items()}
        return ProbeReferences(
            points={name: points[name] for name in self.exemplars.names},
            prior=prior,
            resyntheses={name: tuple(Resynthesis(r.seed, source.pictures[r], r.guidance) for r in part) for name, part in present.items()},
            exemplars=exemplars,
            judged_by=self.exemplars.alone.counts if self.exemplars.alone else {},
            stopped_by=stopped_by,
            looked_up=sum(request in source.looked_up for part in present.values() for request in part),
            forecast_s=source.forecast_s if self.cache else None,
        )

    def _fill_from_gallery(
        self, probes: Sequence[PreparedProbe], references: list[ProbeReferences], copies: Sequence[Sequence[Match]]
    ) -> list[ProbeReferences]:
        """Where nothing may be generated: gallery pictures most like each probe for the candidates without a resynthesis.

        `copies`: of each probe in the gallery, which are no references.
        """
        incomplete = [i for i, found in enumerate(references) if not found.complete]
        if self.cache is None or self.options.policy != LOOK_UP or not incomplete:
            return references
        queries, left_out = np.stack([probes[i].features for i in incomplete]), [{match.row for match in copies[i]} for i in incomplete]
        similar = self.cache.similar_content(queries, self.options.references, left_out, self.space.extractor.device)
        filled = list(references)
        for i, by_name in zip(incomplete, similar, strict=True):
            lacking = [name for name, count in references[i].counts.items() if not count]
            if absent := [name for name in lacking if name not in by_name]:
                raise ConfigError(
                    f"the gallery has no picture by {absent[0]}; add some (resynth gallery add), or let it generate them with --policy both"
                )
            points = {name: self.space.points(by_name[name]) for name in lacking}
            filled[i] = replace(references[i], points={**references[i].points, **points}, similar_content=tuple(lacking))
        return filled

    def _warnings(self, references: ProbeReferences, in_gallery: Sequence[Match]) -> Iterator[str]:
        yield from self.exemplars.warnings()
        if in_gallery and self.space.fit:
            yield "a copy of this picture is in the gallery, and the gallery's fit may rest on it"
        if references.similar_content:
            names = ", ".join(references.similar_content)
            yield f"no resynthesis of the caption by {names}: judged by gallery pictures of similar content, uncalibrated"
        elif references.stopped_by:
            missing = [name for name, pictures in references.resyntheses.items() if not pictures]
            untried = f"; without a single picture, and so not excluded: {', '.join(missing)}" if missing else ""
            yield f"generation was cut short by {references.stopped_by}, before the remaining candidates were told apart{untried}"


def _check(options: Options, names: Sequence[str], generators: int, exemplar_sources: Sequence[str], *, fitted: bool, cached: bool) -> None:
    """ConfigError if the options do not fit the candidates called `names`, the number that generate, those with exemplars, or the gallery.

    `fitted`: a gallery's fit is used; `cached`: the gallery is looked into.
    """
    if not names:
        raise ConfigError("an attributor needs at least one candidate; name one, for example zoo:")
    if (options.policy != GENERATE) != cached:
        raise ConfigError(f"policy is {options.policy!r}: it looks into a gallery; name one with --gallery")
    if options.max_pictures is not None and options.max_pictures < generators:
        raise ConfigError(
            f"max_pictures is {options.max_pictures}; "
            f"each of the {generators} candidates generates at least one: allow {generators} or more"
        )
    if options.together and fitted:
        raise ConfigError("together and a gallery exclude each other, as both provide the prior; leave out one of the two")
    if options.together and exemplar_sources:
        raise ConfigError(f"together shares resyntheses, and {exemplar_sources[0]} cannot generate any; leave out one of the two")
    if options.limited and exemplar_sources:
        raise ConfigError(
            f"race, max_pictures and deadline limit candidates that generate, and {exemplar_sources[0]} does not; leave out one of the two"
        )
