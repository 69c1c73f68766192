"""Accuracy on the embedded zoo: fresh probes from held-out captions, attributed from their pixels alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import zoo
from ..arrays import Doubles, Integers
from ..attributor import Attributor
from ..candidates.engine import EngineCandidate
from ..errors import ConfigError
from ..images import perturbations
from ..scoring.decision import Decision
from ..types import Pixels, Request
from . import metrics, racing

PROBE_SEEDS = 1 << 40
"""Where the seeds of probes begin: far from any reference's, so that none shares its noise."""
CHUNK = 16
RACED = "tagger, racing"


@dataclass(frozen=True, slots=True)
class Probe:
    """A picture whose generator and caption are known; truth is -1 for a withheld generator."""

    truth: int
    caption: str
    pixels: Pixels


def draw(candidates: Sequence[EngineCandidate], captions: Sequence[str], truth: Sequence[int], *, seed: int, steps: int) -> list[Probe]:
    """One probe for each caption, by the candidate of the same position, with its own noise."""
    probes: list[Probe] = []
    for i in range(0, len(captions), CHUNK):
        rows = range(i, min(i + CHUNK, len(captions)))
        for g in sorted({truth[j] for j in rows}):
            mine = [j for j in rows if truth[j] == g]
            seeds = [PROBE_SEEDS + (seed << 20) + j for j in mine]
            made = candidates[g].make([captions[j] for j in mine], seeds, steps)
            probes += [Probe(g, captions[j], pixels) for j, pixels in zip(mine, made, strict=True)]
    return probes


def evaluate(
    attributor: Attributor, *, probes: int, seed: int, probe_steps: int, progress: Callable[[int, int], None] = lambda done, of: None
) -> dict[str, Any]:
    """Draw `probes` pictures over the candidates (and a quarter as many by the withheld generators) and attribute them.

    Captions: the captioner's (what `resynth attribute` uses), the true one (an upper bound), the one of another probe
    that has most words in common with it, and any other probe's (what is left when the caption says nothing). All are
    judged on the same probes. An attributor that races is judged without and with racing, on the same pictures.
    """
    names = list(attributor.candidates)
    if probes < len(names):
        raise ConfigError(f"--probes is {probes}; it must be at least {len(names)}, one for each candidate")
    rng = np.random.default_rng([seed, 0x5EED])
    unknown_count = max(1, probes // 4)
    captions = rng.choice(np.array(zoo.prompts()), probes + unknown_count, replace=probes + unknown_count > len(zoo.prompts())).tolist()
    candidates = [c for c in attributor.candidates.values() if isinstance(c, EngineCandidate)]
    known = draw(candidates, captions[:probes], [i % len(names) for i in range(probes)], seed=seed, steps=probe_steps)
    outside = [EngineCandidate(bundle, attributor.pool) for bundle in zoo.withheld()]
    unknown = draw(outside, captions[probes:], [0] * unknown_count, seed=seed + 1, steps=probe_steps) if outside else []

    start = time.perf_counter()
    everything = [*known, *unknown]
    described = [p.caption for p in known]
    written = attributor.captioner.caption([p.pixels for p in everything])
    points = attributor.space([p.pixels for p in everything])
    changes = [perturbations.perturbation(name) for name in perturbations.MILD]
    copies = [list(attributor.space([change(p.pixels) for change in changes])) for p in everything]
    points_of = dict(references(attributor, list(dict.fromkeys(written)), progress))

    def drawn(texts: list[str]) -> list[list[Doubles]]:
        return [[points_of[text, candidate] for candidate in names] for text in texts]

    def judge(texts: list[str]) -> list[Decision]:
        return attributor.judge(texts, list(points), copies, drawn(texts))

    judged = {"tagger": judge(written)}
    seconds = time.perf_counter() - start  # what an attribution takes; the other conditions are the evaluation's own
    truly = [p.caption for p in everything]
    points_of |= references(attributor, [text for text in dict.fromkeys(truly) if (text, names[0]) not in points_of], progress)
    judged |= {"true": judge(truly), "nearest": judge(_nearest(truly)), "random": judge([*truly[1:], truly[0]])}
    truth = np.array([p.truth for p in known])
    prompt = np.unique(np.array(described), return_inverse=True)[1]
    raced = {}
    if attributor.options.race:
        counts = racing.race(attributor, written, list(points), drawn(written))
        judged[RACED] = racing.judged(attributor, written, list(points), copies, drawn(written), counts)
        everyone, texts = np.concatenate([truth, np.full(len(unknown), -1)]), np.unique(np.array(truly), return_inverse=True)[1]
        raced = {"race": racing.agreement(attributor, judged[RACED], judged["tagger"], counts, everyone, texts)}
    groups = np.array([names.index(relatives(attributor)[name]) for name in names])
    rows = {name: _summary(decisions[: len(known)], truth, prompt, groups) for name, decisions in judged.items()}
    main = rows["tagger"]
    consistency = np.array([d.consistency for d in judged["tagger"]])
    return {
        "protocol": "closed",
        "recipe": attributor.evidence.recipe,
        "dataset": "zoo:",
        "n": len(known),
        "seed": seed,
        "candidates": names,
        "references": attributor.options.references,
        "steps": attributor.options.steps,
        "probe_steps": probe_steps,
        "gallery_per_candidate": 0,
        "chance": 1 / len(names),
        "accuracy": {
            "top1": main["top1"],
            "balanced": main["balanced"],
            "ci95": main["ci95"],
            "grouped": main["grouped"],
            "grouped_ci95": main["grouped_ci95"],
        },
        "top3": main["top3"],
        "macro_f1": main["macro_f1"],
        "ece": main["ece"],
        "ece_ci95": main["ece_ci95"],
        "nll": main["nll"],
        "brier": main["brier"],
        "reliability": main["reliability"],
        "conformal": main["conformal"],
        "conditions": rows,
        "differences": {
            f"{a} - {b}": _difference(judged[a][: len(known)], judged[b][: len(known)], truth, prompt)
            for a, b in (("tagger", "random"), ("tagger", "nearest"), ("true", "tagger"))
        },
        "unknown": {
            "n": len(unknown),
            "answered_unknown": _rate(judged["tagger"][len(known) :]),
            "known_answered_unknown": _rate(judged["tagger"][: len(known)]),
        },
        "auroc_unknown": metrics.auroc(consistency[: len(known)], consistency[len(known) :]) if unknown else None,
        **raced,
        "caption_agreement": float(np.mean([a == b for a, b in zip(written[: len(known)], described, strict=True)])),
        "seconds_per_probe": seconds / len(everything),
        "provenance": attributor.evidence.provenance(),
    }


def relatives(attributor: Attributor) -> dict[str, str]:
    """Each candidate's group: the first candidate with the same autoencoder."""
    first: dict[str, str] = {}
    return {
        name: first.setdefault(c.bundle.lineage.get("autoencoder", name) if isinstance(c, EngineCandidate) else name, name)
        for name, c in attributor.candidates.items()
    }


def references(
    attributor: Attributor, texts: list[str], progress: Callable[[int, int], None] = lambda done, of: None
) -> Mapping[tuple[str, str], Doubles]:
    """Points (K, d) of every candidate's resyntheses of every text, each text made once."""
    found: dict[tuple[str, str], Doubles] = {}
    for i in range(0, len(texts), CHUNK):
        progress(i, len(texts))
        made = attributor.references.executor.make(texts[i : i + CHUNK])
        points = dict(zip(made, attributor.space(list(made.values())), strict=True))
        for text in texts[i : i + CHUNK]:
            for name in attributor.candidates:
                found[text, name] = np.stack([points[Request(name, text, seed)] for seed in attributor.options.seeds])
    progress(len(texts), len(texts))
    return found


def _nearest(captions: Sequence[str]) -> list[str]:
    """For each caption, the one among the others that shares most words with it, and is not the same."""
    words = {text: set(text.replace(",", "").split()) for text in captions}
    return [max((other for other in words if other != text), key=lambda o: len(words[o] & words[text]), default=text) for text in captions]


def _summary(decisions: Sequence[Decision], truth: Integers, prompt: Integers, groups: Integers) -> dict[str, Any]:
    probability = np.stack([d.probabilities for d in decisions])
    predicted = probability.argmax(1)
    hit, grouped = predicted == truth, groups[predicted] == groups[truth]
    ranks = np.argsort(-probability, axis=1)
    count = probability.shape[1]
    return {
        "top1": float(hit.mean()),
        "balanced": metrics.balanced_accuracy(hit, truth),
        "ci95": metrics.interval(hit.astype(float), prompt),
        "grouped": float(grouped.mean()),
        "grouped_ci95": metrics.interval(grouped.astype(float), prompt),
        "top3": float((ranks[:, :3] == truth[:, None]).any(1).mean()),
        "macro_f1": metrics.macro_f1(predicted, truth),
        "confusion": [[int(((truth == t) & (predicted == p)).sum()) for p in range(count)] for t in range(count)],
        "nll": metrics.nll(probability, truth),
        "brier": metrics.brier(probability, truth),
        "ece": metrics.ece(probability, truth),
        "ece_ci95": metrics.ece_interval(probability, truth, prompt),
        "reliability": metrics.reliability(probability, truth),
        "conformal": metrics.conformal(probability, truth, prompt),
        "status": {s: sum(d.status == s for d in decisions) for s in ("attributed", "inconclusive", "unknown")},
        "attributed_correct": float(np.mean(hit[rows]))
        if (rows := np.array([d.status == "attributed" for d in decisions])).any()
        else None,
        "set_coverage": float(np.mean([t in d.credible for d, t in zip(decisions, truth, strict=True)])),
        "set_size": float(np.mean([len(d.credible) for d in decisions])),
    }


def _difference(a: Sequence[Decision], b: Sequence[Decision], truth: Integers, prompt: Integers) -> dict[str, Any]:
    """Paired difference of top-1 between two conditions, with its interval."""
    gain = np.array([float(x.order[0] == t) - float(y.order[0] == t) for x, y, t in zip(a, b, truth, strict=True)])
    return {"top1": float(gain.mean()), "ci95": metrics.interval(gain, prompt)}


def _rate(decisions: Sequence[Decision]) -> float | None:
    return float(np.mean([d.status == "unknown" for d in decisions])) if decisions else None
