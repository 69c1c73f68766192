"""From a decision to a verdict: the pictures it rests on, their provenance, and every reason to trust it less."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from . import __version__
from .candidates import Candidate
from .captioners import Captioner
from .engines.pool import Account, EnginePool
from .extractors.space import FeatureSpace
from .kernels import isa, noise
from .options import Options
from .resynthesis import advice
from .resynthesis.preparation import PreparedProbes
from .resynthesis.race import REACH
from .resynthesis.references import ProbeReferences
from .scoring import calibration
from .scoring.calibration import Calibration
from .scoring.decision import NOT_CALIBRATED, Decision
from .types import CandidateEvidence, Part, PreparedProbe, Verdict


class Evidence:
    """Writes the verdicts of one attributor."""

    def __init__(
        self,
        candidates: Mapping[str, Candidate],
        captioner: Captioner,
        space: FeatureSpace,
        calibration: Calibration,
        pool: EnginePool,
        options: Options,
    ) -> None:
        self.candidates = candidates
        self.captioner = captioner
        self.space = space
        self.calibration = calibration
        self.pool = pool
        self.options = options
        self.mismatches = tuple(advice.mismatches(list(candidates.values()), captioner, space, calibration))
        """Warnings of every verdict: the parts were not made for these candidates."""
        self._names: dict[Part, str] = {"captioner": captioner.name, "extractor": space.name}

    def __call__(
        self, prepared: PreparedProbes, references: Sequence[ProbeReferences], decisions: Sequence[Decision], memory: Account
    ) -> list[Verdict]:
        """One verdict per probe, in their order; `memory`: loads and evictions of the call."""
        count = len(prepared.probes)
        timing_ms = prepared.timer.per_probe(count) | {"weights_wait": memory.waited_ms / count}
        foreign = [tuple(self._foreign(*row)) for row in zip(prepared.probes, references, strict=True)]
        if self.options.same_source:  # one answer rests on all pictures
            foreign = [max(foreign, key=len)] * count
        rows = zip(prepared.probes, references, decisions, foreign, strict=True)
        return [self._verdict(*row, timing_ms, memory) for row in rows]

    def _foreign(self, probe: PreparedProbe, references: ProbeReferences) -> Iterator[Part]:
        """The parts that do not know the probe, and on which its answer rests.

        Without resyntheses no candidate depends on the caption. A calibration that was measured on the candidates' own pictures
        holds for these, wherever the extractor's constants come from.
        """
        if "captioner" in probe.foreign_to and any(references.resyntheses.values()):
            yield "captioner"
        if "extractor" in probe.foreign_to and self.space.fit is None and self.calibration is self.space.calibration:
            yield "extractor"

    def _verdict(
        self,
        probe: PreparedProbe,
        references: ProbeReferences,
        decision: Decision,
        foreign: Sequence[Part],
        timing_ms: Mapping[str, float],
        memory: Account,
    ) -> Verdict:
        # A candidate without references can be neither named nor excluded, so no other one is named either.
        candidates = tuple(self._candidate(i, references, decision) for i in decision.order)
        first = candidates[0]
        reason = decision.reason
        if foreign and decision.status != "unknown":  # which names nobody, and is as true of a picture that no part knows
            reason = advice.foreign(foreign, self._names)
        elif reason == NOT_CALIBRATED and references.resyntheses and not references.exemplars:
            reason = f"{reason}; {advice.CALIBRATE}"
        if references.similar_content:
            reason = reason or "Gallery pictures of similar content were the references, for which nothing is calibrated"
        if missing := [name for name, count in references.counts.items() if not count]:
            reason = reason or f"Time ran out before {missing[0]} had a picture, so it is not excluded"
        status = "inconclusive" if reason and decision.status == "attributed" else decision.status
        return Verdict(
            status=status,
            reason=reason,
            label=first.name if status == "attributed" else None,
            family=first.family if status == "attributed" else None,
            probability=first.probability,
            margin=decision.margin,
            consistency=decision.consistency,
            credible_set=tuple(list(self.candidates)[i] for i in decision.credible),
            candidates=candidates,
            caption=probe.caption.text,
            captioner=probe.caption.by,
            perturbations=len(probe.perturbed),
            flips=decision.flips,
            probe=probe.picture,
            timing_ms=timing_ms,
            provenance=self.provenance() | self._references(references) | memory.provenance(self.pool.budget_bytes),
            warnings=(
                *_copy_warnings(references, first.name if status == "attributed" else None),
                *self._warnings(probe, references, memory),
            ),
            known_copies=references.known_copies,
        )

    @property
    def recipe(self) -> str:
        """How references are scored: together, default (with a gallery's fit) or one-shot."""
        return "together" if self.options.together else "default" if self.space.fit else "one-shot"

    def provenance(self) -> dict[str, Any]:
        """Versions, hashes and settings that all verdicts of the attributor depend on."""
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
            "calibration": self.calibration.source,
        }

    def _candidate(self, index: int, references: ProbeReferences, decision: Decision) -> CandidateEvidence:
        candidate = list(self.candidates.values())[index]
        exemplars, resyntheses = references.exemplars.get(candidate.name), references.resyntheses.get(candidate.name, ())
        return CandidateEvidence(
            name=candidate.name,
            family=candidate.family,
            bundle=candidate.sha256,
            score=float(decision.scores[index]),
            probability=float(decision.probabilities[index]),
            resyntheses=resyntheses,
            exemplars=tuple(exemplars.pixels()) if exemplars else (),
            best_guidance=decision.guidance[index] if decision.guidance and any(made.guidance != 1 for made in resyntheses) else "",
            pictures=references.judged_by.get(candidate.name, 0),
        )

    def _references(self, references: ProbeReferences) -> dict[str, Any]:
        """Where fewer pictures may be generated than asked for: how many were, and why no more. With a gallery: what it gave."""
        provenance: dict[str, Any] = {}
        pictures = sum(map(len, references.resyntheses.values()))
        if self.options.limited:
            provenance["race"] = {
                "reach": REACH if self.options.race else None,
                "max_references": self.options.references,
                "pictures": pictures,
                "stopped_by": references.stopped_by or None,
            }
        if references.forecast_s is not None:
            provenance["gallery"] = {
                "policy": self.options.policy,
                "looked_up": references.looked_up,
                "generated": pictures - references.looked_up,
                "similar_content": list(references.similar_content),
                "forecast_s": round(references.forecast_s, 3),
            }
        return provenance

    def _warnings(self, probe: PreparedProbe, references: ProbeReferences, memory: Account) -> Iterator[str]:
        yield from probe.picture.warnings
        yield from probe.caption.warnings
        if self.options.same_source:
            yield "one answer for all pictures of this call, which were declared to come from one generator"
        yield from self.pool.fallbacks
        yield from self.mismatches
        unused = () if any(references.resyntheses.values()) else ("captioner",)  # nothing was drawn from the caption
        for part in (part for part in probe.foreign_to if part not in unused):
            yield f"the picture is unlike those that {part} {self._names[part]} was fitted on; {advice.BRING[part]}"
        most = max(references.counts.values(), default=0) or self.options.references
        if not references.judged_by or not self.calibration.measured:  # a source is judged by all its pictures, as it was calibrated
            yield from calibration.warnings(self.calibration, most, self.options.steps)
        for candidate in self.candidates.values():
            yield from candidate.warnings
        yield from references.warnings
        yield from memory.warnings(self.pool.budget_bytes)


def _copy_warnings(references: ProbeReferences, label: str | None) -> Iterator[str]:
    """What the copies of a probe say against the answer `label`, or against each other."""
    given = list(dict.fromkeys(copy.generator for copy in references.known_copies))
    if given and label is not None and label not in given:
        yield f"the pixels are attributed to {label}, but this picture was given as {' and as '.join(given)}; check how it was labelled"
    if len(given) > 1:
        yield f"this picture was given as {' and as '.join(given)}; at least one of the labels is wrong"
