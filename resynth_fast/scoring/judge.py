"""Judges all probes of a call by the priors, the calibration and the grouping that the options select. Pure, float64."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..kernels.similarity import Scores
from ..options import Options
from ..types import Doubles
from .calibration import Calibration
from .decision import Decision, decide
from .prior import Prior, batch_priors
from .score import Guidance, best, best_guidance, score_parts


@dataclass(frozen=True, slots=True)
class Judge:
    """Decides, per probe, which of C candidates explains it best."""

    calibration: Calibration
    within_trace: float
    prior: Prior
    """Prior of the candidates that holds for every probe without one of its own."""
    options: Options
    identities: tuple[str, ...] = ()
    """SHA-256 of each candidate: two of the same are one source."""

    def __call__(
        self,
        captions: Sequence[str],
        points: Sequence[Doubles],
        perturbed: Sequence[Sequence[Doubles]],
        references: Sequence[Sequence[Doubles]],
        priors: Sequence[Prior] | None = None,
        guidance: Guidance | None = None,
    ) -> list[Decision]:
        """One decision per probe; with `same_source` the same one for all.

        `points` (d,) and `perturbed` (d,) each, `references` C arrays (K, d) per probe: all whitened. If candidates have
        unequal numbers of references, the calibration of the largest number holds. `guidance`: of the references, as of `score`.
        """
        priors = batch_priors(captions, references) if self.options.together else priors or [self.prior] * len(points)
        whitened = np.array([[point, *copies] for point, copies in zip(points, perturbed, strict=True)])
        parts = score_parts(whitened, references, priors, self.within_trace, guidance)
        if self.options.same_source:
            return [self._decide(parts, references[0])] * len(points)
        rows = [[Scores(scores[i : i + 1], consistency[i : i + 1]) for scores, consistency in parts] for i in range(len(points))]
        return [self._decide(row, own) for row, own in zip(rows, references, strict=True)]

    def of_sources(self, scored: Scores) -> list[Decision]:
        """One decision per probe by scores (P, n, C) of sources that cannot be run; with `same_source` the same one for all."""
        if self.options.same_source:
            return [self._decide([scored], [])] * len(scored.scores)
        return [self._decide([Scores(*(part[i : i + 1] for part in scored))], []) for i in range(len(scored.scores))]

    def _decide(self, parts: Sequence[Scores], references: Sequence[Doubles]) -> Decision:
        judged = best(parts)
        point = self.calibration.at(max(map(len, references), default=1), self.options.steps)
        decision = decide(judged, point, measured=self.calibration.measured, identities=self.identities)
        return replace(decision, guidance=best_guidance(parts))
