"""Accuracy on the embedded zoo: probes are generated from held-out captions and attributed from their pixels alone."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .. import zoo
from ..attributor import Attributor
from ..candidates import GenerativeCandidate, ScheduledCandidate
from ..candidates.engine import EngineCandidate
from ..errors import ConfigError
from ..images import perturbations
from ..scoring.decision import Decision
from ..types import Doubles, Integers, Pixels
from . import metrics, racing
from .dataset import Progress, silent

PROBE_SEEDS = 1 << 40
"""Seeds of probes start here, far from the seeds of references, so that no probe shares its noise with one."""
CHUNK = 16
RACED = "tagger, racing"
COMPARED = (("tagger", "random"), ("tagger", "nearest"), ("true", "tagger"))
"""Conditions whose difference in accuracy is reported."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A picture whose generator and caption are known."""

    truth: int
    """index among the candidates, −1 for a withheld generator"""
    caption: str
    pixels: Pixels


@dataclass(frozen=True, slots=True)
class DescribedProbe:
    """A probe with the caption and the points that the attributor computes for it."""

    probe: Probe
    written: str
    """caption by the captioner"""
    point: Doubles
    """(d,) whitened"""
    copies: list[Doubles]
    """points (d,) of its perturbed copies"""


@dataclass(frozen=True, slots=True)
class Labels:
    """Labels of n probes by candidates."""

    truth: Integers
    """(n,) index among the candidates"""
    prompt: Integers
    """(n,) unit of the bootstrap"""
    group: Integers
    """(C,) index of each candidate's first relative"""


def generate_probes(
    candidates: Sequence[GenerativeCandidate],
    captions: Sequence[str],
    truth: Sequence[int],
    *,
    seed: int,
    steps: int,
    guidance: float = 1.0,
) -> list[Probe]:
    """One probe per caption, by the candidate `truth` gives for it, with its own noise. Probes come in another order than captions.

    `guidance`: multiple of the guidance scale of the candidates that have one.
    """
    probes: list[Probe] = []
    for start in range(0, len(captions), CHUNK):
        rows = range(start, min(start + CHUNK, len(captions)))
        for generator in sorted({truth[row] for row in rows}):
            own = [row for row in rows if truth[row] == generator]
            seeds = [PROBE_SEEDS + (seed << 20) + row for row in own]
            candidate = candidates[generator]
            if isinstance(candidate, ScheduledCandidate):
                device, drawn = candidate.draw([captions[row] for row in own], seeds, steps, guidance if candidate.guided else 1.0)
                pictures: Sequence[Pixels] = list(device.to_host(drawn))
            else:
                pictures = candidate.make([captions[row] for row in own], seeds, steps)
            probes += [Probe(generator, captions[row], pixels) for row, pixels in zip(own, pictures, strict=True)]
    return probes


def reference_points(attributor: Attributor, captions: Sequence[str], progress: Progress = silent) -> dict[tuple[str, str], Doubles]:
    """(caption, candidate) → points (K, d) of the candidate's resyntheses of the caption."""
    points: dict[tuple[str, str], Doubles] = {}
    executor = attributor.references.executor
    for start in range(0, len(captions), CHUNK):
        progress(start, len(captions))
        chunk = captions[start : start + CHUNK]
        pictures = executor.make(chunk)
        by_request = dict(zip(pictures, attributor.space(list(pictures.values())), strict=True))
        for text in chunk:
            for name in attributor.candidates:
                points[text, name] = np.stack([by_request[request] for request in executor.references(name, text)])
    progress(len(captions), len(captions))
    return points


class CaptionJudge:
    """Judges the same probes with different captions; the resyntheses of a caption are generated once."""

    def __init__(self, attributor: Attributor, probes: Sequence[DescribedProbe], progress: Progress) -> None:
        self.attributor, self.probes, self.progress = attributor, probes, progress
        self._resyntheses: dict[tuple[str, str], Doubles] = {}

    def references(self, captions: Sequence[str]) -> list[list[Doubles]]:
        """For each caption, points (K, d) of each candidate's resyntheses."""
        names = list(self.attributor.candidates)
        missing = [text for text in dict.fromkeys(captions) if (text, names[0]) not in self._resyntheses]
        if missing:
            self._resyntheses |= reference_points(self.attributor, missing, self.progress)
        return [[self._resyntheses[text, name] for name in names] for text in captions]

    def __call__(self, captions: Sequence[str]) -> list[Decision]:
        """One decision per probe, with the caption of the same position."""
        return self._judge(self.probes, captions)

    def judged(self, probes: Sequence[DescribedProbe]) -> list[Decision]:
        """One decision for each of `probes`, with the caption by the captioner."""
        return self._judge(probes, [probe.written for probe in probes])

    def race(self, captions: Sequence[str]) -> tuple[list[Decision], racing.Counts]:
        """Decisions with racing, and how many references (n, C) each race takes."""
        references, points = self.references(captions), [probe.point for probe in self.probes]
        counts = racing.race(self.attributor, captions, points, references)
        copies = [probe.copies for probe in self.probes]
        return racing.judged(self.attributor, captions, points, copies, references, counts), counts

    def _judge(self, probes: Sequence[DescribedProbe], captions: Sequence[str]) -> list[Decision]:
        points, copies = [probe.point for probe in probes], [probe.copies for probe in probes]
        guidance = [[self.attributor.references.executor.guidance(name) for name in self.attributor.candidates]] * len(captions)
        return self.attributor.judge(captions, points, copies, self.references(captions), guidance=guidance)


def evaluate(
    attributor: Attributor,
    *,
    probes: int,
    seed: int,
    probe_steps: int,
    probe_guidance: float = 1.0,
    degradations: Sequence[str] = (),
    progress: Progress = silent,
) -> dict[str, Any]:
    """Generate `probes` pictures by the candidates (and a quarter as many by the withheld generators) and attribute them.

    Every probe is judged with four captions: the captioner's (which `resynth attribute` uses), the true one (an upper
    bound), the caption of another probe that shares most words with it, and any other probe's (which shows what is left
    without caption). An attributor that races is judged without and with racing, on the same pictures. With `degradations`
    (protocol robustness) the same probes are also judged after each of them, by the caption of the degraded picture.
    """
    known, unknown = _generate(attributor, probes, seed, probe_steps, probe_guidance)
    everything = [*known, *unknown]
    start = time.perf_counter()
    described = _describe(attributor, everything)
    judge = CaptionJudge(attributor, described, progress)
    written, true = [probe.written for probe in described], [probe.caption for probe in everything]
    decisions = {"tagger": judge.judged(described)}
    seconds = time.perf_counter() - start  # the time of an attribution; the other captions belong to the evaluation alone
    decisions |= {"true": judge(true), "nearest": judge(_nearest(true)), "random": judge([*true[1:], true[0]])}
    labels, race = _labels(attributor, known), {}
    if attributor.options.race:
        decisions[RACED], counts = judge.race(written)
        truth, prompt = np.array([probe.truth for probe in everything]), _numbered(true)
        race = {"race": racing.agreement(attributor, decisions[RACED], decisions["tagger"], counts, truth, prompt)}
    degraded = {"robustness": [_degraded(attributor, judge, name, everything, len(known)) for name in degradations]} if degradations else {}
    return {
        "protocol": "robustness" if degradations else "closed",
        "recipe": attributor.evidence.recipe,
        "dataset": "zoo:",
        "n": len(known),
        "seed": seed,
        "candidates": list(attributor.candidates),
        "references": attributor.options.references,
        "steps": attributor.options.steps,
        "guidance": list(attributor.options.guidance),
        "denoiser_rows": int(racing.reference_rows(attributor).sum()),
        "probe_steps": probe_steps,
        "probe_guidance": probe_guidance,
        "gallery_per_candidate": 0,
        "chance": 1 / len(attributor.candidates),
        **_accuracy(decisions, labels),
        **_unknown(decisions["tagger"], labels.truth),
        **race,
        **degraded,
        "caption_agreement": float(np.mean([a == b for a, b in zip(written[: len(known)], true, strict=False)])),
        "seconds_per_probe": seconds / len(everything),
        "provenance": attributor.evidence.provenance(),
    }


def _generate(attributor: Attributor, count: int, seed: int, steps: int, guidance: float) -> tuple[list[Probe], list[Probe]]:
    """`count` probes of held-out captions by the candidates in turn, and a quarter as many by the withheld generators."""
    candidates = [c for c in attributor.candidates.values() if isinstance(c, ScheduledCandidate)]
    if count < len(attributor.candidates):
        raise ConfigError(f"--probes is {count}; it must be at least {len(attributor.candidates)}, one for each candidate")
    unknown_count, prompts = max(1, count // 4), zoo.prompts()
    rng = np.random.default_rng([seed, 0x5EED])
    captions = rng.choice(np.array(prompts), count + unknown_count, replace=count + unknown_count > len(prompts)).tolist()
    truth = [i % len(candidates) for i in range(count)]
    known = generate_probes(candidates, captions[:count], truth, seed=seed, steps=steps, guidance=guidance)
    withheld = [EngineCandidate(bundle, attributor.pool) for bundle in zoo.withheld()]
    if not withheld:
        return known, []
    unknown = generate_probes(withheld, captions[count:], [0] * unknown_count, seed=seed + 1, steps=steps, guidance=guidance)
    return known, [replace(probe, truth=-1) for probe in unknown]


def _describe(attributor: Attributor, probes: Sequence[Probe]) -> list[DescribedProbe]:
    pixels = [probe.pixels for probe in probes]
    written, points = attributor.captioner.caption(pixels), attributor.space(pixels)
    changes = [perturbations.perturbation(name) for name in perturbations.MILD]
    copies = [list(attributor.space([change(picture) for change in changes])) for picture in pixels]
    return [DescribedProbe(*row) for row in zip(probes, written, points, copies, strict=True)]


def _degraded(attributor: Attributor, judge: CaptionJudge, degradation: str, probes: Sequence[Probe], known_count: int) -> dict[str, Any]:
    """Figures of the same probes after a degradation; those of candidates come first. Resyntheses of a caption are not made again."""
    change = perturbations.perturbation(degradation)
    described = _describe(attributor, [replace(probe, pixels=change(probe.pixels)) for probe in probes])
    decisions = judge.judged(described)
    labels = _labels(attributor, probes[:known_count])
    summary, unknown = _summary(decisions[:known_count], labels), _unknown(decisions, labels.truth)
    return {
        "degradation": degradation,
        "gallery_per_candidate": 0,
        **{key: summary[key] for key in ("balanced", "ci95", "grouped", "top3", "nll", "ece", "status", "attributed_correct")},
        **{key: unknown[f"{key}_unknown"] for key in metrics.OPEN_SET},
        "unknown": unknown["unknown"],
    }


def _labels(attributor: Attributor, known: Sequence[Probe]) -> Labels:
    names, first = list(attributor.candidates), relatives(attributor)
    group = np.array([names.index(first[name]) for name in names])
    return Labels(np.array([probe.truth for probe in known]), _numbered([probe.caption for probe in known]), group)


def _numbered(captions: Sequence[str]) -> Integers:
    """(n,) index of each caption among the different ones."""
    numbers: Integers = np.unique(np.array(captions), return_inverse=True)[1]
    return numbers


def relatives(attributor: Attributor) -> dict[str, str]:
    """Each candidate's group: the first candidate with the same autoencoder."""
    first: dict[str, str] = {}
    return {
        name: first.setdefault(c.bundle.lineage.get("autoencoder", name) if isinstance(c, ScheduledCandidate) else name, name)
        for name, c in attributor.candidates.items()
    }


def _nearest(captions: Sequence[str]) -> list[str]:
    """For each caption, the different one among the others that shares most words with it."""
    words = {text: set(text.replace(",", "").split()) for text in captions}
    return [max((other for other in words if other != text), key=lambda o: len(words[o] & words[text]), default=text) for text in captions]


def _accuracy(decisions: Mapping[str, Sequence[Decision]], labels: Labels) -> dict[str, Any]:
    """Figures of the probes by candidates, which come first among the decisions; `decisions` by condition."""
    known = {name: row[: len(labels.truth)] for name, row in decisions.items()}
    conditions = {name: _summary(row, labels) for name, row in known.items()}
    main = conditions["tagger"]
    return {
        "accuracy": {key: main[key] for key in ("top1", "balanced", "ci95", "grouped", "grouped_ci95")},
        **{key: main[key] for key in ("top3", "macro_f1", "ece", "ece_ci95", "nll", "brier", "reliability", "conformal")},
        "conditions": conditions,
        "differences": {f"{a} - {b}": _difference(known[a], known[b], labels) for a, b in COMPARED},
    }


def _unknown(decisions: Sequence[Decision], truth: Integers) -> dict[str, Any]:
    """How well probes by withheld generators, which come last, are separated from those by the candidates `truth`, which come first."""
    known, unknown = decisions[: len(truth)], decisions[len(truth) :]
    inside, outside = (np.array([decision.consistency for decision in part]) for part in (known, unknown))
    hit = np.array([decision.order[0] for decision in known]) == truth
    separation = metrics.open_set(hit, inside, outside) if unknown else {}
    return {
        "unknown": {
            "n": len(unknown),
            "answered_unknown": _unknown_rate(unknown),
            "known_answered_unknown": _unknown_rate(known),
        },
        **{f"{key}_unknown": separation.get(key) for key in metrics.OPEN_SET},
    }


def _summary(decisions: Sequence[Decision], labels: Labels) -> dict[str, Any]:
    truth, prompt, group = labels.truth, labels.prompt, labels.group
    probability = np.stack([decision.probabilities for decision in decisions])
    predicted = probability.argmax(1)
    hit, grouped = predicted == truth, group[predicted] == group[truth]
    ranks = np.argsort(-probability, axis=1)
    count = probability.shape[1]
    attributed = np.array([decision.status == "attributed" for decision in decisions])
    return {
        "top1": float(hit.mean()),
        "balanced": metrics.balanced_accuracy(hit, truth),
        "ci95": metrics.interval(hit.astype(float), prompt),
        "grouped": float(grouped.mean()),
        "grouped_ci95": metrics.interval(grouped.astype(float), prompt),
        "top3": float((ranks[:, :3] == truth[:, None]).any(1).mean()),
        "macro_f1": metrics.macro_f1(predicted, truth),
        "confusion": metrics.confusion(predicted, truth, count),
        "nll": metrics.nll(probability, truth),
        "brier": metrics.brier(probability, truth),
        "ece": metrics.ece(probability, truth),
        "ece_ci95": metrics.ece_interval(probability, truth, prompt),
        "reliability": metrics.reliability(probability, truth),
        "conformal": metrics.conformal(probability, truth, prompt),
        "status": {status: sum(d.status == status for d in decisions) for status in ("attributed", "inconclusive", "unknown")},
        "attributed_correct": float(np.mean(hit[attributed])) if attributed.any() else None,
        "set_coverage": float(np.mean([t in d.credible for d, t in zip(decisions, truth, strict=True)])),
        "set_size": float(np.mean([len(d.credible) for d in decisions])),
    }


def _difference(a: Sequence[Decision], b: Sequence[Decision], labels: Labels) -> dict[str, Any]:
    """Paired difference of top-1 between two conditions, with its interval."""
    gain = np.array([float(x.order[0] == t) - float(y.order[0] == t) for x, y, t in zip(a, b, labels.truth, strict=True)])
    return {"top1": float(gain.mean()), "ci95": metrics.interval(gain, labels.prompt)}


def _unknown_rate(decisions: Sequence[Decision]) -> float | None:
    return float(np.mean([d.status == "unknown" for d in decisions])) if decisions else None
