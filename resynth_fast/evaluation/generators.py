"""Calibration of generators by their own pictures: nobody has to label any.

Each candidate in turn generates a probe from a stored caption. The captioner describes the probe, every candidate resynthesises the
description, and the probe is judged as `resynth attribute` would judge it, once as it is and once after each of some degradations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import zoo
from ..attributor import Attributor
from ..candidates import GenerativeCandidate, ScheduledCandidate
from ..captioners.tagger import Tagger
from ..errors import ConfigError
from ..images import perturbations
from ..scoring.calibration import Calibration, CalibrationPoint, fit_point
from ..scoring.score import probabilities, score
from ..types import Doubles, Integers, Request
from .dataset import Progress, silent
from .zoo import generate_probes, reference_points

CAPTIONS = Path(__file__).with_name("captions.txt")
"""General captions, of people, places, animals and things, as photographs, paintings and drawings."""
DEGRADATIONS = ("jpeg-70", "resize-0.5", "blur-1")
"""Probes seldom come as their generator wrote them."""
REFERENCES = (1, 2, 4, 6, 8)
LEAST_PROBES = 19
"""With fewer no error rate of 5 % can be shown, so no candidate would be named."""
SEED = 1 << 12
FOLDS = 5


@dataclass(frozen=True, slots=True)
class Measured:
    """A calibration and what it would have said of its own probes."""

    calibration: Calibration
    figures: dict[str, Any]
    """By number of references, shares of the clean and of the degraded probes: first candidate right, named right, named wrongly,
    called unknown. Thresholds are fitted on the other four fifths of the probes."""


def prompts(attributor: Attributor, count: int) -> list[str]:
    """Captions for `count` probes: what a tagger can say, else general ones, some of them twice if there are too few."""
    captioner = attributor.captioner
    if isinstance(captioner, Tagger):
        held_out = set(zoo.prompts())
        return [text for text in captioner.sentences(2 * count + len(REFERENCES)) if text not in held_out][:count]
    general = CAPTIONS.read_text().splitlines()
    return [general[i % len(general)] for i in range(count)]


def forecast(attributor: Attributor, texts: Sequence[str], probe_steps: int) -> tuple[int, float]:
    """Number of pictures that `measure` generates, at most, and seconds by the cost table, feature extraction not included."""
    executor, names = attributor.references.executor, list(attributor.candidates)
    references = [request for text in texts for name in names for request in executor.references(name, text)]
    probes = [Request(names[i % len(names)], text, -1) for i, text in enumerate(texts)]
    per_step = probe_steps / attributor.options.steps
    return len(references) + len(probes), executor.forecast_s(references) + per_step * executor.forecast_s(probes)


def most_steps(attributor: Attributor) -> int:
    """The most denoising steps for which every candidate has a table: probes are rarely made in few."""
    tables = [
        set(map(int, candidate.bundle.get("step_tables", dict)["{}x{}".format(*candidate.bundle.resolution_px)]))
        for candidate in attributor.candidates.values()
        if isinstance(candidate, ScheduledCandidate)
    ]
    return max(set.intersection(*tables), default=attributor.options.steps) if tables else attributor.options.steps


def measure(attributor: Attributor, texts: Sequence[str], *, probe_steps: int, progress: Progress = silent) -> Measured:
    """Generate a probe from each text, by the candidates in turn, and calibrate on the attributor's own answers.

    ConfigError if a candidate does not generate, if there are fewer than two, or too few texts.
    """
    candidates = list(attributor.candidates.values())
    if folders := [candidate.name for candidate in candidates if not isinstance(candidate, GenerativeCandidate)]:
        raise ConfigError(f"{folders[0]} does not generate pictures; folders and galleries calibrate themselves, so leave it out")
    if len(candidates) < 2 or len(texts) < LEAST_PROBES:
        raise ConfigError(
            f"{len(candidates)} candidates and {len(texts)} probes are too few; give at least 2 candidates and {LEAST_PROBES} probes"
        )
    generators = [candidate for candidate in candidates if isinstance(candidate, GenerativeCandidate)]
    probes = generate_probes(generators, texts, [i % len(generators) for i in range(len(texts))], seed=SEED, steps=probe_steps)
    truth = np.array([probe.truth for probe in probes])
    written = attributor.captioner.caption([probe.pixels for probe in probes])
    resyntheses = reference_points(attributor, list(dict.fromkeys(written)), progress)
    changes = [perturbations.perturbation(name) for name in DEGRADATIONS]
    points = np.stack([attributor.space([probe.pixels, *(change(probe.pixels) for change in changes)]) for probe in probes])
    fitted, figures = [], {}
    for count in sorted({count for count in (*REFERENCES, attributor.options.references) if count <= attributor.options.references}):
        references = [[resyntheses[text, name][:count] for name in attributor.candidates] for text in written]
        guidance = [[attributor.references.executor.guidance(name)[:count] for name in attributor.candidates]] * len(references)
        scored = score(points, references, within_trace=attributor.space.whitening.within_trace, guidance=guidance)
        fitted.append(_point(count, attributor.options.steps, scored.scores, scored.consistency, truth))
        figures[str(count)] = _figures(count, attributor.options.steps, scored.scores, scored.consistency, truth)
    source = f"{len(probes)} probes by the candidates themselves, clean and degraded ({', '.join(DEGRADATIONS)})"
    identities = tuple(sorted(candidate.sha256 for candidate in candidates))
    return Measured(Calibration(tuple(fitted), source, candidates=identities), figures)


def _point(count: int, steps: int, scores: Doubles, consistency: Doubles, truth: Integers) -> CalibrationPoint:
    """The point for scores (P, n, C) and consistencies (P, n) of n copies of each of P probes."""
    copies = scores.shape[1]
    return fit_point(count, steps, scores.reshape(-1, scores.shape[2]), consistency.reshape(-1), np.repeat(truth, copies), copies=copies)


def _figures(count: int, steps: int, scores: Doubles, consistency: Doubles, truth: Integers) -> dict[str, dict[str, float]]:
    """See `Measured.figures`."""
    shape = consistency.shape
    right, named, unknown = np.zeros(shape, bool), np.zeros(shape, bool), np.zeros(shape, bool)
    for fold in range(FOLDS):
        held = np.arange(len(truth)) % FOLDS == fold
        point = _point(count, steps, scores[~held], consistency[~held], truth[~held])
        for i, copy in np.argwhere(np.broadcast_to(held[:, None], shape)):
            probability = probabilities(scores[i, copy], point.temperature)
            right[i, copy] = probability.argmax() == truth[i]
            unknown[i, copy] = consistency[i, copy] < point.unknown_below
            named[i, copy] = probability.max() >= point.attributed_from and consistency[i, copy] >= max(
                point.unknown_below, point.consistent_from
            )
    parts = {"clean": np.s_[:, :1], "degraded": np.s_[:, 1:]}
    return {
        name: {
            "right": float(right[part].mean()),
            "named_right": float((named & right)[part].mean()),
            "named_wrongly": float((named & ~right)[part].mean()),
            "unknown": float(unknown[part].mean()),
        }
        for name, part in parts.items()
    }
