"""The whole method, a line a stage; read this first.

probe → caption → every candidate resynthesises it in few steps → features → score → verdict
(Bongini et al.: Training-free Source Attribution of AI-generated Images via Resynthesis, arXiv 2510.24278).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from . import __version__, captioners, images, zoo
from .arrays import Doubles
from .bundle import Bundle
from .candidates import Candidate, GenerativeCandidate, find
from .candidates.folder import SelectedExemplars
from .captioners import Captioner, choice
from .engines.pool import Account, EnginePool
from .errors import ConfigError
from .extractors.space import FeatureSpace, open_space
from .images import perturbations
from .kernels import noise
from .kernels.similarity import backend as isa
from .options import Options
from .resynthesis.executor import Executor
from .resynthesis.exemplars import ExemplarReferences
from .resynthesis.references import ProbeReferences, ReferenceBuilder
from .scheduler import CostTable, costs
from .scoring import calibration
from .scoring.calibration import CalibrationPoint
from .scoring.decision import Decision, decide
from .scoring.prior import Prior, batch_prior
from .timing import StageTimer
from .types import CandidateEvidence, Caption, Picture, Pixels, Request, Verdict

if TYPE_CHECKING:
    from .gallery.cache import ResynthesisCache


class PreparedProbes(NamedTuple):
    """Probes that were captioned and described."""

    probes: Sequence[Picture]
    captions: Sequence[Caption]
    described: Sequence[tuple[npt.NDArray[np.float32], Doubles, list[Doubles]]]
    """Features, point, and points of perturbed copies, of each"""
    timers: dict[str, StageTimer]
    """What it took, by stage"""


class Attributor:
    """Says which of its candidates a picture is most consistent with.

    >>> attributor = Attributor.open(references=2)
    >>> [verdict] = attributor(["picture.png"])
    >>> verdict.status, verdict.label, verdict.probability
    """

    def __init__(
        self,
        candidates: Sequence[Candidate],
        captioner: Captioner,
        space: FeatureSpace,
        pool: EnginePool,
        options: Options | None = None,
        cache: ResynthesisCache | None = None,
    ) -> None:
        if not candidates:
            raise ConfigError("an attributor needs at least one candidate")
        self.candidates = {candidate.name: candidate for candidate in candidates}
        self.generators = {name: candidate for name, candidate in self.candidates.items() if isinstance(candidate, GenerativeCandidate)}
        self.captioner = captioner
        self.space = space
        self.pool = pool
        self.options = options or Options()
        self.executor = Executor(self.generators, pool, self.options.steps)
        self.references = ReferenceBuilder(self.executor, space, self.options, cache)
        self.exemplars = ExemplarReferences(self.candidates, captioner, space, lambda prompts: self.make(prompts, self.seeds[:1]))
        self.options.check(
            generators=len(self.generators),
            exemplar_sources=list(self.exemplars.sources),
            fitted=space.fit is not None,
            cached=cache is not None,
        )

    @classmethod
    def open(
        cls,
        candidates: Sequence[str] = ("zoo:",),
        *,
        extractor: Path | None = None,
        gallery: Path | None = None,
        fit: str | None = None,
        captioner: str = captioners.ZOO,
        backend: str = "onnxruntime",
        strict_backend: bool = False,
        threads: int | None = None,
        memory_budget: int | None = None,
        **options: Any,
    ) -> Attributor:
        """Candidates by name (as in `candidates.find`), captioner as in `captioners.find`; options as in `Options`.

        `extractor`: a bundle's folder in place of the zoo's; `gallery`: a folder whose `fit` (by its hash; the newest) is used;
        `memory_budget`: bytes that all loaded engines may take together. `strict_backend`: an engine that cannot run as
        `backend` says is a DeviceError, else a warning of every verdict.
        """
        pool = EnginePool(backend, threads=threads or os.cpu_count() or 1, budget_bytes=memory_budget, strict=strict_backend)
        pool.costs = CostTable.read(costs.stored(), pool.machine)
        space = open_space(Bundle.open(extractor) if extractor else zoo.bundle(zoo.TEXTURE), pool)
        chosen, sources, cache = Options(**options), find(candidates, pool), None
        if gallery:
            from .gallery import cache as galleries  # only here: it imports a database and file locks, which few runs need

            space, cache = galleries.open_cache(gallery, space, sources, pool, chosen.steps, policy=chosen.policy, fit=fit)
        return cls(sources, captioners.find(captioner, pool), space, pool, chosen, cache)

    def __call__(self, probes: Iterable[str | Path | Picture]) -> list[Verdict]:
        """Verdicts for picture files or pictures already read; none depends on the others unless `Options` say so. Raises ResynthError."""
        with StageTimer() as reading:
            pictures = [probe if isinstance(probe, Picture) else images.read(probe) for probe in probes]
        return self.attribute(pictures, read_ms=reading.ms)

    def attribute(self, probes: Sequence[Picture], read_ms: float = 0.0) -> list[Verdict]:
        """As calling, for pictures already read; `read_ms` is what their reading took."""
        return self.attribute_prepared(self.prepare(probes, read_ms))

    def prepare(self, probes: Sequence[Picture], read_ms: float = 0.0) -> PreparedProbes:
        """Caption and describe: what can be done while other probes' pictures are made."""
        timers = {stage: StageTimer() for stage in ("read", "caption", "generate", "features", "score")}
        timers["read"].ms = read_ms
        with timers["caption"]:
            said = choice.captions(self.options.caption, probes, self.captioner) if probes else []
        with timers["features"]:
            described = self.pool.lanes.map(self._described, probes)
        return PreparedProbes(probes, said, described, timers)

    def attribute_prepared(self, looked: PreparedProbes) -> list[Verdict]:
        """Verdicts of probes that were looked at."""
        probes, said, described, timers = looked
        if not probes:
            return []
        left_s = (self.options.deadline or 0.0) * len(probes) - sum(watch.ms for watch in timers.values()) / 1000
        deadline, before = time.monotonic() + left_s if self.options.deadline else None, self.pool.account
        captions = [caption.text for caption in said]
        features, points, copies = zip(*described, strict=True)
        with timers["generate"]:
            known = [self.exemplars.prior(probe) for probe in probes]
        with timers["features"]:
            chosen = [self.exemplars.select(probe, point, self.options.references) for probe, point in zip(probes, points, strict=True)]
        drawn = self.references(captions, points, timers, deadline)
        drawn = self.references.fill_from_gallery(drawn, features, [probe.sha256 for probe in probes])
        references = [self._references(d, given) for d, given in zip(drawn, chosen, strict=True)]
        with timers["score"]:
            decisions = self.judge(captions, points, copies, references, known)
        timing = {stage: watch.ms / len(probes) for stage, watch in timers.items()}
        timing["total"] = sum(timing.values())
        memory = self.pool.account.since(before)
        timing["weights"] = memory.waited_ms / len(probes)
        return [
            self._verdict(probe, caption, d, given, decision, timing, memory)
            for probe, caption, d, given, decision in zip(probes, said, drawn, chosen, decisions, strict=True)
        ]

    def make(self, prompts: Sequence[str], seeds: Sequence[int] | None = None) -> dict[Request, Pixels]:
        """Every maker's pictures of every prompt, each distinct one made once; `seeds`: other than those of the references."""
        seeds = self.seeds if seeds is None else seeds
        made = self.executor([Request(name, prompt, seed) for prompt in prompts for name in self.generators for seed in seeds])
        return {request: found.pixels for request, found in made.items()}

    @property
    def seeds(self) -> range:
        """Seeds of the references, the same for every probe and candidate."""
        return self.options.seeds

    @property
    def recipe(self) -> str:
        """How the references are used, by name."""
        return "together" if self.options.together else "default" if self.space.fit else "one-shot"

    def provenance(self) -> dict[str, object]:
        """What a verdict rests on besides its candidates."""
        fit = self.space.fit
        return {
            "resynth_fast": __version__,
            "backend": self.pool.backend.version(),
            "isa": isa(),
            "captioner_sha256": self.captioner.sha256,
            "extractor_sha256": self.space.sha256,
            "noise_version": noise.VERSION,
            "recipe": self.recipe,
            "gallery_per_candidate": min(fit.pictures_of(list(self.candidates))) if fit else 0,
            "fit_sha256": fit.sha256 if fit else None,
            "calibration": self.space.calibration.source,
        }

    def judge(
        self,
        captions: Sequence[str],
        points: Sequence[Doubles],
        copies: Sequence[Sequence[Doubles]],
        references: Sequence[Sequence[Doubles]],
        known: Sequence[Prior] | None = None,
    ) -> list[Decision]:
        """One decision a probe; with `same_source` the same one for all.

        Where candidates have unequal numbers of references, what was calibrated with the largest of them holds.
        """
        space = self.space
        known = known or [space.prior(list(self.candidates))] * len(points)
        known = together(captions, references) if self.options.together else known
        if self.options.same_source:
            return [decide(points, copies, references, known, self._calibrated(references[0]), space.whitening.within_trace)] * len(points)
        each = zip(points, copies, references, known, strict=True)
        return [decide([p], [c], [r], [k], self._calibrated(r), space.whitening.within_trace) for p, c, r, k in each]

    def _calibrated(self, references: Sequence[Doubles]) -> CalibrationPoint:
        return self.space.calibration.at(max(map(len, references)), self.options.steps)

    def _described(self, probe: Picture) -> tuple[npt.NDArray[np.float32], Doubles, list[Doubles]]:
        """Features and point of a probe, and points of its perturbed copies, (d,) each."""
        changes = [perturbations.perturbation(name) for name in perturbations.MILD]
        features = self.space.features([probe.pixels, *(change(probe.pixels) for change in changes)])
        point, *copies = self.space.points(features)
        return features[0], point, copies

    def _references(self, drawn: ProbeReferences, chosen: Sequence[SelectedExemplars]) -> list[Doubles]:
        """Points (K, d) of each candidate's references: what it made of the caption, or was chosen of what it gave."""
        found = dict(zip(self.generators, drawn.references, strict=True)) | {c.name: c.points for c in chosen}
        return [found[name] for name in self.candidates]

    def _verdict(
        self,
        probe: Picture,
        caption: Caption,
        drawn: ProbeReferences,
        chosen: Sequence[SelectedExemplars],
        decision: Decision,
        timing: Mapping[str, float],
        memory: Account,
    ) -> Verdict:
        ordered = [list(self.candidates.values())[i] for i in decision.order]
        given = {c.name: tuple(c.pixels()) for c in chosen}
        evidence = tuple(
            CandidateEvidence(
                name=candidate.name,
                family=candidate.family,
                bundle=candidate.sha256,
                score=float(decision.scores[i]),
                probability=float(decision.probabilities[i]),
                resyntheses=drawn.resyntheses.get(candidate.name, ()),
                exemplars=given.get(candidate.name, ()),
            )
            for i, candidate in zip(decision.order, ordered, strict=True)
        )
        attributed = decision.status == "attributed" and drawn.complete
        return Verdict(
            status=decision.status if drawn.complete or decision.status == "unknown" else "inconclusive",
            label=evidence[0].name if attributed else None,
            family=evidence[0].family if attributed else None,
            probability=evidence[0].probability,
            margin=decision.margin,
            consistency=decision.consistency,
            credible_set=tuple(list(self.candidates)[i] for i in decision.credible),
            candidates=evidence,
            caption=caption.text,
            captioner=caption.by,
            perturbations=len(perturbations.MILD),
            flips=decision.flips,
            probe=probe,
            timing_ms=timing,
            provenance=self.provenance() | self.references.provenance(drawn) | memory.provenance(self.pool.budget_bytes),
            warnings=(*probe.warnings, *caption.warnings, *self._warnings(probe, drawn), *memory.warnings(self.pool.budget_bytes)),
        )

    def _warnings(self, probe: Picture, drawn: ProbeReferences) -> Iterator[str]:
        if self.options.same_source:
            yield "one answer for all pictures of this call, which were declared to come from one generator"
        yield from self.pool.fallbacks
        yield from calibration.warnings(self.space.calibration, drawn.most or self.options.references, self.options.steps)
        for candidate in self.candidates.values():
            yield from candidate.warnings
        yield from self.exemplars.warnings(probe)
        yield from drawn.warnings


def together(captions: Sequence[str], references: Sequence[Sequence[Doubles]]) -> list[Prior]:
    """What the resyntheses of the other captions say of the candidates, for each probe.

    `references` has, for each probe, C arrays (K, d). A probe's own caption says nothing here, nor does any probe.
    """
    cells = {caption: np.stack([r.mean(0) for r in found]) for caption, found in zip(captions, references, strict=True)}
    copies = len(references[0][0])
    known = {
        caption: batch_prior([cell for other, cell in cells.items() if other != caption], len(own), own.shape[1], copies)
        for caption, own in cells.items()
    }
    return [known[caption] for caption in captions]
