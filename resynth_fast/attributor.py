"""The whole method in four stages; read this first.

Prepare captions and features of the probes; let every candidate resynthesise the captions; judge; write down the evidence.
(Bongini et al.: Training-free Source Attribution of AI-generated Images via Resynthesis, arXiv 2510.24278)
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from . import captioners, zoo
from .bundle import Bundle
from .candidates import GALLERY, ZOO, Candidate, GenerativeCandidate, find, of_gallery
from .captioners import Captioner
from .engines.pool import EnginePool
from .errors import ConfigError
from .evidence import Evidence
from .extractors.space import FeatureSpace, open_space
from .images.copies import GivenPictures
from .options import GENERATE, OptionFields, Options
from .resynthesis import advice, own_calibration
from .resynthesis.preparation import FeatureExtraction, Preparation, PreparedProbes
from .resynthesis.references import ProbeReferences, ReferenceBuilder
from .resynthesis.timing import Deadline
from .scheduler import CostTable, costs
from .scoring.calibration import Calibration
from .scoring.decision import Decision
from .scoring.judge import Judge
from .types import Picture, Verdict

if TYPE_CHECKING:
    from .gallery.cache import ResynthesisCache


class Attributor:
    """Says which of its candidates a picture is most consistent with. `open` assembles one from names.

    Example:
        >>> Attributor.open(references=4)(["examples/07.png"])[0].label
        'zoo-flux'
    """

    def __init__(
        self,
        candidates: Sequence[Candidate],
        captioner: Captioner,
        space: FeatureSpace,
        pool: EnginePool,
        options: Options | None = None,
        cache: ResynthesisCache | None = None,
        given: GivenPictures | None = None,
        measured: Calibration | None = None,
    ) -> None:
        """`measured`: a calibration measured with these candidates by `resynth calibrate`; without one the extractor's holds, if it may."""
        self.candidates = {candidate.name: candidate for candidate in candidates}
        generates = any(isinstance(candidate, GenerativeCandidate) for candidate in candidates)
        self.captioner, self.space, self.pool, self.options = captioner, space, pool, options or Options()
        features = FeatureExtraction(space, pool)
        self.prepare = Preparation(captioner if generates else None, features, pool, self.options)
        self.references = ReferenceBuilder(self.candidates, captioner, features, pool, self.options, cache, given, measured)
        calibration = self.references.calibration
        identities = tuple(candidate.sha256 for candidate in candidates)
        self.judge = Judge(calibration, space.whitening.within_trace, space.prior(list(self.candidates)), self.options, identities)
        self.evidence = Evidence(self.candidates, captioner, space, calibration, pool, self.options)

    @classmethod
    def open(
        cls,
        candidates: Sequence[str] | None = None,
        *,
        extractor: Path | None = None,
        gallery: Path | None = None,
        fit: str | None = None,
        captioner: str = captioners.ZOO,
        backend: str = "onnxruntime",
        strict_backend: bool = False,
        threads: int | None = None,
        memory_budget: int | None = None,
        **options: Unpack[OptionFields],
    ) -> Attributor:
        """Assemble an attributor from the names of its parts.

        Args:
            candidates: zoo:, zoo:NAME, gallery:, gallery:NAME, a bundle's folder, NAME=FOLDER of exemplars, or
                NAME=https://HOST#model=MODEL. By default gallery: if there is a gallery that keeps no resyntheses, else zoo:.
            extractor: Folder of an extractor bundle; by default the zoo's.
            gallery: Folder of a gallery, for candidates gallery:, for a prior of generators and, by `policy`, for resyntheses.
            fit: SHA-256 of the gallery's fit to use, by default the newest; with gallery: the fit whose pictures are used, by default all.
            captioner: zoo:, a captioner bundle's folder, or https://HOST#model=MODEL.
            backend: Name of the backend that runs the engines, with its device if it has several, as in onnxruntime:cuda.
            strict_backend: Whether an engine that cannot run as `backend` says is an error instead of a warning.
            threads: Threads of the engines; by default one per core.
            memory_budget: Bytes of memory for all loaded engines together; by default unlimited.
            **options: Fields of `Options`, as in references=4.

        Raises:
            ResynthError: A name or an option is wrong (ConfigError), a bundle or gallery is broken (BundleError).
        """
        chosen = Options(**options)
        pool = EnginePool(backend, threads=threads, budget_bytes=memory_budget, strict=strict_backend)
        pool.costs = CostTable.read(costs.stored(), pool.machine)
        space = open_space(Bundle.open(extractor) if extractor else zoo.bundle(zoo.TEXTURE), pool)
        if candidates is None:
            candidates = (GALLERY,) if gallery and chosen.policy == GENERATE else (ZOO,)
        open_gallery, cache, given = None, None, None
        if gallery and any(map(of_gallery, candidates)):
            from .gallery.sources import open_sources  # here: it imports a database and file locks, which few runs need

            if chosen.policy != GENERATE:
                raise ConfigError(f"policy is {chosen.policy!r}, but candidates gallery: generate nothing; leave --policy out")
            open_gallery = open_sources(gallery, space, fit)
        sources = find(candidates, pool, open_gallery)
        if gallery and not open_gallery:
            from .gallery import Gallery
            from .gallery.cache import open_cache

            space, cache = open_cache(gallery, space, sources, pool, chosen.steps, policy=chosen.policy, fit=fit)
            with Gallery.open(gallery) as stored:
                given = stored.given()
        describer = captioners.find(captioner, pool)
        measured = own_calibration.find([source.sha256 for source in sources], describer, space, chosen)
        return cls(sources, describer, space, pool, chosen, cache, given, measured)

    def notices(self) -> list[str]:
        """What to know before the first verdict: which parts were made for other candidates, or do not say what they know."""
        return [*self.evidence.mismatches, *advice.ignorance(self.captioner, self.space)]

    def __call__(self, probes: Iterable[str | Path | Picture]) -> list[Verdict]:
        """Attribute pictures. None affects the verdict of another, unless `together` or `same_source` is set.

        Args:
            probes: Picture files, or pictures already read.

        Returns:
            One verdict per probe, in their order.

        Raises:
            ResynthError: A file cannot be read, an engine fails, or the deadline passed before a single picture was generated.
        """
        return self.attribute_prepared(self.prepare(probes))

    def attribute_prepared(self, prepared: PreparedProbes) -> list[Verdict]:
        """One verdict per probe, in their order; errors as of a call."""
        if not prepared.probes:
            return []
        before = self.pool.account
        references = self.references(prepared, Deadline.after(self.options.deadline, len(prepared.probes), prepared.spent_s))
        with prepared.timer.stage("score"):
            decisions = self._decisions(prepared, references)
        return self.evidence(prepared, references, decisions, self.pool.account.since(before))

    def _decisions(self, prepared: PreparedProbes, references: Sequence[ProbeReferences]) -> list[Decision]:
        if alone := self.references.exemplars.alone:
            return self.judge.of_sources(alone(prepared.probes))
        points, priors = [list(one.points.values()) for one in references], [one.prior for one in references]
        guidance = [one.guidance for one in references]
        return self.judge(prepared.captions, prepared.points, prepared.perturbed, points, priors, guidance)

    @classmethod
    def from_zoo(cls, candidates: Sequence[str] = ("zoo:",), **settings: Any) -> Attributor:
        """Deprecated name of `open`; the next version drops it."""
        warnings.warn("Attributor.from_zoo is deprecated; use Attributor.open", DeprecationWarning, stacklevel=2)
        return cls.open(candidates, **settings)
