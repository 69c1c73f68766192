"""Protocols of `resynth evaluate ROOT` over a labelled dataset; each result is one JSON document."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..errors import ConfigError
from ..extractors.space import FeatureSpace
from ..images import perturbations
from ..scoring.score import fit_temperature, probabilities
from ..types import Booleans, Doubles
from . import baseline, metrics
from .config import GALLERY_STEPS, EvaluationConfig
from .dataset import Dataset, DatasetFeatures, Progress, describe, read, silent
from .protocols import Judgements, NothingJudgedError, ProtocolRunner
from .spaces import Spaces

PROTOCOLS = ("closed", "open", "robustness", "curve")
POINTS = (1, 2, 4, 10, 25, 50, 100)
OPEN_AT_MOST = 12
"""Maximum number of generators for which the closed protocol also leaves each generator out once."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One evaluation: data, extractor and configuration."""

    root: Path
    space: FeatureSpace
    config: EvaluationConfig
    cache: Path | None = None
    backend: str = ""
    """name and version of what runs the extractor, for the cache's key and for provenance"""
    degradations: Sequence[str] = perturbations.ROBUSTNESS
    progress: Progress = silent

    @cached_property
    def data(self) -> DatasetFeatures:
        """The dataset's features."""
        return self.describe(read(self.root))

    @cached_property
    def spaces(self) -> Spaces:
        return Spaces(self.data, self.space.constants)

    def describe(self, dataset: Dataset, degradation: str | None = None) -> DatasetFeatures:
        return describe(dataset, self.space, degradation=degradation, cache=self.cache, backend=self.backend, progress=self.progress)

    def runner(self, probes: DatasetFeatures | None = None, **changes: Any) -> ProtocolRunner:
        """A runner with the run's configuration and `changes` to it; `probes`: features of degraded probes."""
        sizes = list(self.space.extractor.block_sizes.values())
        return ProtocolRunner(self.data, self.space.constants, sizes, replace(self.config, **changes), probes, self.spaces)


def evaluate(run: Run, protocol: str) -> dict[str, Any]:
    """The result of one protocol; each has the fields of `closed` on the clean pictures."""
    if protocol not in PROTOCOLS:
        raise ConfigError(f"--protocol is {protocol!r}; it must be {', '.join(PROTOCOLS)}")
    runner = run.runner()
    if protocol == "open" and (len(runner.candidates) < 3 or run.config.references == 0):
        raise ConfigError("protocol open leaves each generator out once, so it needs at least three generators and --references 1 or more")
    start = time.perf_counter()
    judged = runner.judge()
    scoring = (time.perf_counter() - start) / len(judged.probe)
    result: dict[str, Any] = {
        "protocol": protocol,
        "recipe": run.config.recipe,
        **closed(runner, judged),
        **_summarised(None),
        "seconds_per_probe": run.data.seconds_per_picture + scoring,
        "generator_runs_per_probe": run.config.references * len(runner.candidates),
        "captions_together": runner.captions_together(),
        **_unknown(runner, judged, protocol),
    }
    if run.config.gallery and run.config.references:
        with contextlib.suppress(NothingJudgedError):  # with one picture per cell only a gallery can judge
            result["no_gallery"] = _accuracy(run.runner(recipe="one-shot", without=_without_gallery(run.config)))
    if protocol == "robustness":
        result["robustness"] = robustness(run)
    if protocol == "curve":
        result["curve"] = curve(run)
    return result | _description(run, [run.data.dataset.generators[g] for g in runner.candidates])


def _unknown(runner: ProtocolRunner, judged: Judgements, protocol: str) -> dict[str, Any]:
    """Separation of unknown generators, as far as the protocol and the dataset allow it."""
    figures: dict[str, Any] = {}
    if protocol == "open" or (protocol == "closed" and len(runner.candidates) <= OPEN_AT_MOST):
        left_out = strict(runner)
        figures |= _summarised(left_out)
        if protocol == "open":
            figures["open"] = left_out
    if outsiders := outside(runner, judged):
        figures["outside"] = outsiders
    return figures


def _summarised(separation: Mapping[str, Any] | None) -> dict[str, float | None]:
    """The figures of unknown generators that stand beside the accuracy; None where they were not measured."""
    return {f"{key}_unknown": separation[key] if separation else None for key in metrics.OPEN_SET}


def _description(run: Run, candidates: list[str]) -> dict[str, Any]:
    """Dataset, baseline, setting and provenance of a result."""
    dataset, facts, config = run.data.dataset, run.data.facts, run.config
    return {
        "baseline": None if facts is None else baseline.evaluate(facts, dataset.generator, dataset.group),
        "setting": {
            "references": config.references,
            "draws": config.draws,
            "seed": config.seed,
            "without": list(config.without),
            "leave_out": list(config.leave_out),
            "together": config.together,
        },
        "dataset": run.root.name,
        "generators": candidates,
        "prompts": len(np.unique(dataset.group)),
        "pictures": len(dataset),
        "skipped": list(dataset.skipped),
        "provenance": {
            "resynth_fast": __version__,
            "extractor": run.space.name,
            "extractor_sha256": run.space.sha256,
            "backend": run.backend,
            "nuisance": list(run.space.constants.nuisance),
        },
    }


def closed(runner: ProtocolRunner, judged: Judgements) -> dict[str, Any]:
    """Balanced accuracy and calibration on probes by candidates; the draws of a probe count together as one trial."""
    judged = judged.only(judged.truth >= 0)
    if not len(judged.probe):
        raise ConfigError(
            "no probe is by a generator that has references; add references to the dataset, or probes by generators that have them"
        )
    group = runner.data.group[judged.probe]
    ranks = np.argsort(-judged.scores, axis=1, kind="stable")
    predicted = ranks[:, 0]
    hit = predicted == judged.truth
    probability = cross_fitted(judged)
    count = judged.scores.shape[1]
    n = len(np.unique(judged.probe))
    return {
        "n": n,
        "unjudged": int(np.isin(runner.data.generator[runner.data.probe], runner.candidates).sum()) - n,
        "accuracy": {
            "top1": float(hit.mean()),
            "balanced": metrics.balanced_accuracy(hit, judged.truth),
            "ci95": metrics.balanced_interval(hit.astype(float), judged.truth, group),
        },
        "top3": metrics.balanced_accuracy((ranks[:, :3] == judged.truth[:, None]).any(1), judged.truth),
        "top5": metrics.balanced_accuracy((ranks[:, :5] == judged.truth[:, None]).any(1), judged.truth),
        "macro_f1": metrics.macro_f1(predicted, judged.truth),
        "chance": 1 / count,
        "confusion": metrics.confusion(predicted, judged.truth, count),
        "gallery_per_candidate": runner.gallery_per_candidate(),
        "nll": metrics.nll(probability, judged.truth),
        "brier": metrics.brier(probability, judged.truth),
        "ece": metrics.ece(probability, judged.truth, judged.draw),
        "ece_ci95": metrics.ece_interval(probability, judged.truth, group, judged.draw),
        "reliability": metrics.reliability(probability, judged.truth),
        "conformal": metrics.conformal(probability, judged.truth, group),
    }


def cross_fitted(judged: Judgements) -> Doubles:
    """Calibrated probabilities; the temperature of each fold is fitted on the other folds."""
    folds = np.unique(judged.fold)
    result = np.zeros_like(judged.scores)
    for fold in folds:
        test = judged.fold == fold
        train = ~test if len(folds) > 1 else test
        temperature = fit_temperature(list(judged.scores[train]), judged.truth[train].tolist())
        result[test] = np.stack([probabilities(row, temperature) for row in judged.scores[test]])
    return result


def strict(runner: ProtocolRunner) -> dict[str, Any] | None:
    """Separation of unknown generators: each candidate is left out of fit, gallery and candidates once.

    None if there are too few candidates or references to measure it.
    """
    if len(runner.candidates) < 3 or runner.config.references == 0:
        return None
    rows = []
    for unknown in runner.candidates:
        judged = runner.judge([g for g in runner.candidates if g != unknown])
        known, foreign = judged.truth >= 0, runner.data.generator[judged.probe] == unknown
        if known.any() and foreign.any():
            rows.append({"unknown": runner.data.generators[unknown], **_separation(judged, known, foreign)})
    if not rows:
        return None
    means = {key: float(np.mean([row[key] for row in rows])) for key in rows[0] if key != "unknown"}
    return {**means, "by_generator": rows}


def outside(runner: ProtocolRunner, judged: Judgements) -> list[dict[str, Any]]:
    """Separation of the probes whose source has no resyntheses and so is not a candidate, by source."""
    known, sources = judged.truth >= 0, runner.data.generator[judged.probe]
    if not known.any() or runner.config.references == 0:
        return []
    rows = []
    for source in np.unique(sources[~known]):
        foreign = sources == source
        rows.append(
            {"unknown": runner.data.generators[source], "n": len(np.unique(judged.probe[foreign])), **_separation(judged, known, foreign)}
        )
    return rows


def _separation(judged: Judgements, known: Booleans, foreign: Booleans) -> dict[str, float]:
    hit = (judged.scores.argmax(1) == judged.truth)[known]
    return metrics.open_set(hit, judged.consistency[known], judged.consistency[foreign])


def robustness(run: Run) -> list[dict[str, Any]]:
    """Accuracy with degraded probes, with the degradation's family in the nuisance constants and without it."""
    nuisance = "nuisance" in run.config.steps() and "nuisance" not in run.config.without
    rows = []
    for name in run.degradations:
        degraded = run.describe(run.data.dataset, name)
        family = name.partition("-")[0]
        row: dict[str, Any] = {"degradation": name, **_accuracy(run.runner(degraded))}
        if nuisance and family in run.space.constants.nuisance and family not in run.config.leave_out:
            row["left_out"] = _accuracy(run.runner(degraded, leave_out=(*run.config.leave_out, family)))
        rows.append(row)
    return rows


def curve(run: Run) -> list[dict[str, Any]]:
    """Accuracy by the number of references, for each origin of references.

    `gain_per_picture`: accuracy gained over the row before per further generated picture (one picture is one run of one
    candidate); the first row is compared with chance.
    """
    runner, rows = run.runner(), []
    most = runner.references_at_most()
    for name in dict.fromkeys(("one-shot", run.config.recipe)):
        own = name == run.config.recipe
        without = run.config.without if own else _without_gallery(run.config)
        changes: dict[str, Any] = {"recipe": name, "without": without, **({} if own else {"together": None})}
        before, pictures = 1 / len(runner.candidates), 0
        lookup = [0] if own and run.config.gallery else []
        for m in [*lookup, *(m for m in POINTS if m <= max(1, most))]:
            try:
                figures = _accuracy(run.runner(references=m, **changes))
            except NothingJudgedError:
                break
            generated = m * len(runner.candidates)
            gain = (figures["balanced"] - before) / (generated - pictures) if generated > pictures else None
            before, pictures = figures["balanced"], generated
            rows.append({"policy": f"resynthesised, {name}", "references": m, **figures, "gain_per_picture": gain})
    for policy in ("arbitrary", "aligned"):
        for m in [m for m in POINTS if m <= runner.gallery_at_most()]:
            draws = run.config.draws if policy == "arbitrary" else 1
            variant = run.runner(
                recipe="one-shot", references=m, policy=policy, draws=draws, together=None, without=_without_gallery(run.config)
            )
            rows.append({"policy": policy, "references": m, **_accuracy(variant), "gain_per_picture": None})
    return rows


def _without_gallery(config: EvaluationConfig) -> tuple[str, ...]:
    """The left-out steps that recipe one-shot has."""
    return tuple(step for step in config.without if step not in GALLERY_STEPS)


def _accuracy(runner: ProtocolRunner) -> dict[str, Any]:
    judged = runner.judge()
    judged = judged.only(judged.truth >= 0)
    hit = judged.scores.argmax(1) == judged.truth
    return {
        "balanced": metrics.balanced_accuracy(hit, judged.truth),
        "ci95": metrics.balanced_interval(hit.astype(float), judged.truth, runner.data.group[judged.probe]),
        "gallery_per_candidate": runner.gallery_per_candidate(),
    }
