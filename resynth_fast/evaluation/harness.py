"""`resynth evaluate ROOT`: protocols over a labelled dataset, as one JSON document each."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..arrays import Booleans, Doubles
from ..errors import ConfigError
from ..extractors.space import FeatureSpace
from ..images import perturbations
from ..scoring.score import fit_temperature, probabilities
from . import baseline, metrics
from .config import GALLERY_STEPS, EvaluationConfig
from .dataset import Dataset, DatasetFeatures, Progress, describe, read, silent
from .protocols import Judgements, NothingJudgedError, ProtocolRunner
from .spaces import Spaces

PROTOCOLS = ("closed", "open", "robustness", "curve")
POINTS = (1, 2, 4, 10, 25, 50, 100)
OPEN_AT_MOST = 12
"""Generators up to which a closed evaluation also leaves each out once."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One evaluation: data, extractor and configuration."""

    root: Path
    space: FeatureSpace
    config: EvaluationConfig
    cache: Path | None = None
    backend: str = ""
    """what runs the extractor, for the cache's key and for provenance"""
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

    def bench(self, probes: DatasetFeatures | None = None, **changes: Any) -> ProtocolRunner:
        """The dataset under the run's setting with `changes`; `probes` where their features differ from the references'."""
        sizes = list(self.space.extractor.block_sizes.values())
        return ProtocolRunner(self.data, self.space.constants, sizes, replace(self.config, **changes), probes, self.spaces)


def evaluate(run: Run, protocol: str) -> dict[str, Any]:
    """The result of one protocol; every one has the fields of `closed` about the clean pictures."""
    if protocol not in PROTOCOLS:
        raise ConfigError(f"--protocol is {protocol!r}; it must be {', '.join(PROTOCOLS)}")
    dataset, facts = run.data.dataset, run.data.facts
    bench = run.bench()
    names = [dataset.generators[g] for g in bench.candidates]
    if protocol == "open" and (len(names) < 3 or run.config.references == 0):
        raise ConfigError("the open protocol leaves each generator out once: it needs three at least, and --references 1 or more")
    start = time.perf_counter()
    judged = bench.judge()
    scoring = (time.perf_counter() - start) / len(judged.probe)
    result: dict[str, Any] = {
        "protocol": protocol,
        "recipe": run.config.recipe,
        **closed(bench, judged),
        "auroc_unknown": None,
        "seconds_per_probe": run.data.seconds_per_picture + scoring,
        "generator_runs_per_probe": run.config.references * len(names),
        "captions_together": bench.captions_together(),
    }
    if protocol == "open" or (protocol == "closed" and len(names) <= OPEN_AT_MOST):
        unknown = strict(bench)
        result["auroc_unknown"] = unknown["auroc"] if unknown else None
        if protocol == "open":
            result["open"] = unknown
    if outsiders := outside(bench, judged):
        result["outside"] = outsiders
    if run.config.gallery and run.config.references:
        with contextlib.suppress(NothingJudgedError):  # one picture a cell: only a gallery can judge
            result["no_gallery"] = _accuracy(run.bench(recipe="one-shot", without=_without_gallery(run.config)))
    if protocol == "robustness":
        result["robustness"] = robustness(run)
    if protocol == "curve":
        result["curve"] = curve(run)
    result |= {
        "baseline": None if facts is None else baseline.evaluate(facts, dataset.generator, dataset.group),
        "setting": {
            "references": run.config.references,
            "draws": run.config.draws,
            "seed": run.config.seed,
            "without": list(run.config.without),
            "leave_out": list(run.config.leave_out),
            "together": run.config.together,
        },
        "dataset": run.root.name,
        "generators": names,
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
    return result


def closed(bench: ProtocolRunner, judged: Judgements) -> dict[str, Any]:
    """Balanced accuracy and calibration of probes by candidates; a probe's draws count as parts of one judgement."""
    judged = judged.only(judged.truth >= 0)
    if not len(judged.probe):
        raise ConfigError("no probe was made by a generator that has references; the closed protocol has nothing to ask")
    group = bench.data.group[judged.probe]
    ranks = np.argsort(-judged.scores, axis=1, kind="stable")
    predicted = ranks[:, 0]
    hit = predicted == judged.truth
    probability = cross_fitted(judged)
    count = judged.scores.shape[1]
    n = len(np.unique(judged.probe))
    return {
        "n": n,
        "unjudged": int(np.isin(bench.data.generator[bench.data.probe], bench.candidates).sum()) - n,
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
        "gallery_per_candidate": bench.gallery_per_candidate(),
        "nll": metrics.nll(probability, judged.truth),
        "brier": metrics.brier(probability, judged.truth),
        "ece": metrics.ece(probability, judged.truth, judged.draw),
        "ece_ci95": metrics.ece_interval(probability, judged.truth, group, judged.draw),
        "reliability": metrics.reliability(probability, judged.truth),
        "conformal": metrics.conformal(probability, judged.truth, group),
    }


def cross_fitted(judged: Judgements) -> Doubles:
    """Calibrated probabilities, each fold's temperature fitted on the others."""
    folds = np.unique(judged.fold)
    result = np.zeros_like(judged.scores)
    for fold in folds:
        test = judged.fold == fold
        train = ~test if len(folds) > 1 else test
        temperature = fit_temperature(list(judged.scores[train]), judged.truth[train].tolist())
        result[test] = np.stack([probabilities(row, temperature) for row in judged.scores[test]])
    return result


def strict(bench: ProtocolRunner) -> dict[str, Any] | None:
    """Each candidate unknown once: in no fit, in no gallery, not asked about. None where that cannot be measured."""
    if len(bench.candidates) < 3 or bench.setting.references == 0:
        return None
    rows = []
    for unknown in bench.candidates:
        judged = bench.judge([g for g in bench.candidates if g != unknown])
        known, foreign = judged.truth >= 0, bench.data.generator[judged.probe] == unknown
        if known.any() and foreign.any():
            rows.append({"unknown": bench.data.generators[unknown], **_separation(judged, known, foreign)})
    if not rows:
        return None
    means = {key: float(np.mean([row[key] for row in rows])) for key in rows[0] if key != "unknown"}
    return {**means, "by_generator": rows}


def outside(bench: ProtocolRunner, judged: Judgements) -> list[dict[str, Any]]:
    """Probes of sources that are no candidates because nothing was resynthesised by them: how far they stand out."""
    known, sources = judged.truth >= 0, bench.data.generator[judged.probe]
    if not known.any() or bench.setting.references == 0:
        return []
    found = []
    for source in np.unique(sources[~known]):
        foreign = sources == source
        found.append(
            {"unknown": bench.data.generators[source], "n": len(np.unique(judged.probe[foreign])), **_separation(judged, known, foreign)}
        )
    return found


def _separation(judged: Judgements, known: Booleans, foreign: Booleans) -> dict[str, Any]:
    hit = (judged.scores.argmax(1) == judged.truth)[known]
    inside, outside = judged.consistency[known], judged.consistency[foreign]
    return {
        "auroc": metrics.auroc(inside, outside),
        "oscr": metrics.oscr(hit, inside, outside),
        "ccr_at_fpr5": metrics.ccr_at_fpr(hit, inside, outside),
        "fpr_at_tpr95": metrics.fpr_at_tpr(inside, outside),
    }


def robustness(run: Run) -> list[dict[str, Any]]:
    """Accuracy with the probe alone degraded; with that degradation's family in the nuisance constants, and left out of them."""
    nuisance = "nuisance" in run.config.steps() and "nuisance" not in run.config.without
    rows = []
    for name in run.degradations:
        changed = run.describe(run.data.dataset, name)
        family = name.partition("-")[0]
        row: dict[str, Any] = {"degradation": name, **_accuracy(run.bench(changed))}
        if nuisance and family in run.space.constants.nuisance and family not in run.config.leave_out:
            row["left_out"] = _accuracy(run.bench(changed, leave_out=(*run.config.leave_out, family)))
        rows.append(row)
    return rows


def curve(run: Run) -> list[dict[str, Any]]:
    """Accuracy by the number of references, for each way to come by them.

    `gain_per_picture`: accuracy gained since the row before for each further picture that had to be generated, one
    picture being one run of one candidate; the first row is compared with chance.
    """
    bench, rows = run.bench(), []
    most = bench.references_at_most()
    for name in dict.fromkeys(("one-shot", run.config.recipe)):
        own = name == run.config.recipe
        without = run.config.without if own else _without_gallery(run.config)
        changes: dict[str, Any] = {"recipe": name, "without": without, **({} if own else {"together": None})}
        before, pictures = 1 / len(bench.candidates), 0
        lookup = [0] if own and run.config.gallery else []
        for m in [*lookup, *(m for m in POINTS if m <= max(1, most))]:
            try:
                found = _accuracy(run.bench(references=m, **changes))
            except NothingJudgedError:
                break
            made = m * len(bench.candidates)
            gain = (found["balanced"] - before) / (made - pictures) if made > pictures else None
            before, pictures = found["balanced"], made
            rows.append({"policy": f"resynthesised, {name}", "references": m, **found, "gain_per_picture": gain})
    for policy in ("arbitrary", "aligned"):
        for m in [m for m in POINTS if m <= bench.gallery_at_most()]:
            draws = run.config.draws if policy == "arbitrary" else 1
            asked = run.bench(
                recipe="one-shot", references=m, policy=policy, draws=draws, together=None, without=_without_gallery(run.config)
            )
            rows.append({"policy": policy, "references": m, **_accuracy(asked), "gain_per_picture": None})
    return rows


def _without_gallery(config: EvaluationConfig) -> tuple[str, ...]:
    """The steps that are left out, as far as recipe one-shot has them."""
    return tuple(step for step in config.without if step not in GALLERY_STEPS)


def _accuracy(bench: ProtocolRunner) -> dict[str, Any]:
    judged = bench.judge()
    judged = judged.only(judged.truth >= 0)
    hit = judged.scores.argmax(1) == judged.truth
    return {
        "balanced": metrics.balanced_accuracy(hit, judged.truth),
        "ci95": metrics.balanced_interval(hit.astype(float), judged.truth, bench.data.group[judged.probe]),
        "gallery_per_candidate": bench.gallery_per_candidate(),
    }
