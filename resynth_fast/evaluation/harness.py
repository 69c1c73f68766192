"""`resynth evaluate ROOT`: protocols over a labelled dataset, as one JSON document each."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__, perturbations, recipe
from ..errors import ConfigError
from ..extractors.space import FeatureSpace
from ..recipe import Doubles
from . import baseline, metrics
from .dataset import Dataset, Described, Progress, describe, read
from .protocols import Bench, Judged, Setting

PROTOCOLS = ("closed", "open", "robustness", "curve")
POINTS = (1, 2, 4, 10, 25, 50, 100)
OPEN_AT_MOST = 12
"""Generators up to which a closed evaluation also leaves each out once."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One evaluation: data, extractor and setting."""

    root: Path
    space: FeatureSpace
    setting: Setting
    cache: Path | None = None
    degradations: Sequence[str] = perturbations.ROBUSTNESS
    progress: Progress = field(default=lambda done, of: None)

    def describe(self, dataset: Dataset, degradation: str | None = None) -> Described:
        return describe(dataset, self.space, degradation=degradation, cache=self.cache, progress=self.progress)

    def bench(self, data: Described, probes: Described | None = None, **changes: Any) -> Bench:
        sizes = list(self.space.extractor.block_sizes.values())
        return Bench(data, self.space.constants, sizes, replace(self.setting, **changes), probes)


def evaluate(run: Run, protocol: str) -> dict[str, Any]:
    """The result of one protocol; every one has the fields of `closed` about the clean pictures."""
    if protocol not in PROTOCOLS:
        raise ConfigError(f"--protocol is {protocol!r}; it must be {', '.join(PROTOCOLS)}")
    data = run.describe(read(run.root))
    start = time.perf_counter()
    bench = run.bench(data)
    judged = bench.judge()
    scoring = (time.perf_counter() - start) / len(judged.probe)
    result: dict[str, Any] = {
        "protocol": protocol,
        "recipe": run.setting.recipe,
        **closed(bench, judged),
        "auroc_unknown": None,
        "seconds_per_probe": data.seconds_per_picture + scoring,
        "generator_runs_per_probe": run.setting.references * len(data.dataset.generators),
    }
    if protocol == "open" or (protocol == "closed" and 2 < len(data.dataset.generators) <= OPEN_AT_MOST):
        unknown = strict(bench)
        result["auroc_unknown"] = unknown["auroc"] if unknown else None
        if protocol == "open":
            if not unknown:
                raise ConfigError("the open protocol leaves each generator out once and needs three at least, with references")
            result["open"] = unknown
    if protocol == "robustness":
        result["robustness"] = robustness(run, data)
    if protocol == "curve":
        result["curve"] = curve(run, data)
    result |= {
        "baseline": baseline.evaluate(data.dataset, run.space.pixels),
        "setting": {
            "references": run.setting.references, "draws": run.setting.draws, "seed": run.setting.seed, "without": list(run.setting.without),
            "leave_out": list(run.setting.leave_out), "together": run.setting.together,
        },
        "generators": list(data.dataset.generators),
        "prompts": len(np.unique(data.dataset.group)),
        "pictures": len(data.dataset),
        "skipped": list(data.dataset.skipped),
        "provenance": {"resynth_fast": __version__, "extractor": run.space.name, "extractor_sha256": run.space.sha256},
    }  # fmt: skip
    return result


def closed(bench: Bench, judged: Judged) -> dict[str, Any]:
    """Balanced accuracy and calibration; a probe's draws count as parts of one judgement."""
    group = bench.data.group[judged.probe]
    predicted = judged.scores.argmax(1)
    hit = predicted == judged.truth
    ranks = np.argsort(-judged.scores, axis=1)
    probability = probabilities(judged, group)
    count = judged.scores.shape[1]
    top3 = (ranks[:, :3] == judged.truth[:, None]).any(1)
    return {
        "n": len(np.unique(judged.probe)),
        "accuracy": {
            "top1": float(hit.mean()),
            "balanced": metrics.balanced_accuracy(hit, judged.truth),
            "ci95": metrics.balanced_interval(hit.astype(float), judged.truth, group),
        },
        "top3": metrics.balanced_accuracy(top3, judged.truth),
        "top5": metrics.balanced_accuracy((ranks[:, :5] == judged.truth[:, None]).any(1), judged.truth),
        "macro_f1": metrics.macro_f1(predicted, judged.truth),
        "chance": 1 / count,
        "confusion": [[int(((judged.truth == t) & (predicted == p)).sum()) for p in range(count)] for t in range(count)],
        "gallery_per_candidate": bench.gallery_per_candidate(),
        "nll": metrics.nll(probability, judged.truth),
        "brier": metrics.brier(probability, judged.truth),
        "ece": metrics.ece(probability, judged.truth),
        "ece_ci95": metrics.ece_interval(probability, judged.truth, group),
        "conformal": metrics.conformal(probability, judged.truth, group),
    }


def probabilities(judged: Judged, group: metrics.Integers) -> Doubles:
    """Calibrated probabilities, each fold's temperature fitted on the others."""
    folds = np.unique(judged.fold)
    result = np.zeros_like(judged.scores)
    for fold in folds:
        test = judged.fold == fold
        train = ~test if len(folds) > 1 else test
        temperature = recipe.fit_temperature(list(judged.scores[train]), [int(t) for t in judged.truth[train]])
        result[test] = np.stack([recipe.probabilities(row, temperature) for row in judged.scores[test]])
    return result


def strict(bench: Bench) -> dict[str, Any] | None:
    """Each generator unknown once: in no fit, in no gallery, no candidate. None where that cannot be asked."""
    count = len(bench.data.generators)
    if count < 3 or bench.setting.references == 0:
        return None
    rows = []
    for unknown in range(count):
        judged = bench.judge([g for g in range(count) if g != unknown])
        known = judged.truth >= 0
        if not known.any() or known.all():
            continue
        hit = (judged.scores.argmax(1) == judged.truth)[known]
        inside, outside = judged.consistency[known], judged.consistency[~known]
        rows.append(
            {
                "unknown": bench.data.generators[unknown],
                "auroc": metrics.auroc(inside, outside),
                "oscr": metrics.oscr(hit, inside, outside),
                "ccr_at_fpr5": metrics.ccr_at_fpr(hit, inside, outside),
                "fpr_at_tpr95": metrics.fpr_at_tpr(inside, outside),
            }
        )
    if not rows:
        return None
    means = {key: float(np.mean([row[key] for row in rows])) for key in rows[0] if key != "unknown"}
    return {**means, "by_generator": rows}


def robustness(run: Run, data: Described) -> list[dict[str, Any]]:
    """Accuracy with the probe alone degraded; with that degradation's family in the nuisance constants, and left out of them."""
    rows = []
    for name in run.degradations:
        changed = run.describe(data.dataset, name)
        family = name.partition("-")[0]
        row: dict[str, Any] = {"degradation": name, **_accuracy(run.bench(data, changed))}
        if family in run.space.constants.nuisance:
            row["left_out"] = _accuracy(run.bench(data, changed, leave_out=(*run.setting.leave_out, family)))
        rows.append(row)
    return rows


def curve(run: Run, data: Described) -> list[dict[str, Any]]:
    """Accuracy by the number of references, for each way to come by them."""
    cells = np.unique(np.stack([data.dataset.generator, data.dataset.prompt]), axis=1, return_counts=True)[1]
    most = int(np.median(cells)) - 1
    rows: list[dict[str, Any]] = []
    for m in [m for m in POINTS if m <= max(1, most)]:
        for name in ("one-shot", run.setting.recipe):
            row = {"policy": f"resynthesised, {name}", "references": m, **_accuracy(run.bench(data, references=m, recipe=name))}
            if row not in rows:
                rows.append(row)
    for policy in ("arbitrary", "aligned"):
        for m in POINTS:
            accuracy = _gallery_accuracy(run.bench(data, recipe="one-shot", references=1), data, m, policy)
            if accuracy is not None:
                rows.append({"policy": policy, "references": m, **accuracy})
    last: dict[str, tuple[int, float]] = {}
    for row in rows:  # accuracy gained for each further generated picture
        before = last.get(row["policy"])
        if row["policy"].startswith("resynthesised"):
            row["per_picture"] = (row["balanced"] - before[1]) / (row["references"] - before[0]) if before else None
        last[row["policy"]] = row["references"], row["balanced"]
    return rows


def _accuracy(bench: Bench) -> dict[str, Any]:
    judged = bench.judge()
    hit = judged.scores.argmax(1) == judged.truth
    interval = metrics.balanced_interval(hit.astype(float), judged.truth, bench.data.group[judged.probe])
    return {"balanced": metrics.balanced_accuracy(hit, judged.truth), "ci95": interval}


def _gallery_accuracy(bench: Bench, data: Described, m: int, policy: str) -> dict[str, Any] | None:
    """No generation: m gallery pictures a candidate, of other prompts, at random or nearest by the deepest tap."""
    pick: Callable[[int, metrics.Integers, np.random.Generator], metrics.Integers]
    deep = np.asarray(data.features if data.last is None else data.last, np.float64)
    deep = deep - deep.mean(0)
    deep /= np.linalg.norm(deep, axis=1, keepdims=True) + 1e-12

    def arbitrary(i: int, rows: metrics.Integers, rng: np.random.Generator) -> metrics.Integers:
        return rng.permutation(rows)[:m]

    def aligned(i: int, rows: metrics.Integers, rng: np.random.Generator) -> metrics.Integers:
        return rows[np.argsort(-(deep[rows] @ deep[i]), kind="stable")[:m]]

    pick = arbitrary if policy == "arbitrary" else aligned
    points = recipe.whitening(bench._constants)(bench._reference)
    dataset, truth, hits, groups = data.dataset, [], [], []
    for i in np.flatnonzero(dataset.probe):
        rng = np.random.default_rng([bench.setting.seed, int(i), m])
        other = dataset.reference & (dataset.group != dataset.group[i])
        pools = [np.flatnonzero(other & (dataset.generator == g)) for g in range(len(dataset.generators))]
        if min(map(len, pools)) < m:
            return None
        values = recipe.scores(points[i], [points[pick(int(i), pool, rng)] for pool in pools])
        truth.append(int(dataset.generator[i]))
        hits.append(float(values.argmax() == dataset.generator[i]))
        groups.append(int(dataset.group[i]))
    hit, owner = np.array(hits), np.array(truth)
    interval = metrics.balanced_interval(hit, owner, np.array(groups))
    return {"balanced": metrics.balanced_accuracy(hit.astype(bool), owner), "ci95": interval}
