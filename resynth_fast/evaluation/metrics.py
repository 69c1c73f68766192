"""Metrics of closed-set and open-set attribution. Intervals are bootstrapped over prompts, never over pictures."""

from __future__ import annotations

import math

import numpy as np

from ..types import Booleans, Doubles, Integers

OPEN_SET = ("auroc", "fpr_at_tpr95", "oscr")
"""Figures of `open_set` that stand beside the accuracy; a result has them under these names and `_unknown`."""


def balanced_accuracy(hit: Booleans, truth: Integers) -> float:
    """Mean over classes of the share of hits; (n,), (n,)."""
    return float(np.mean([hit[truth == c].mean() for c in np.unique(truth)]))


def macro_f1(predicted: Integers, truth: Integers) -> float:
    """Mean F1 over the classes that occur in `truth`."""

    def f1(c: int) -> float:
        both = float(((predicted == c) & (truth == c)).sum())
        total = float((predicted == c).sum() + (truth == c).sum())
        return 2 * both / total if total else 0.0

    return float(np.mean([f1(int(c)) for c in np.unique(truth)]))


def confusion(predicted: Integers, truth: Integers, count: int) -> list[list[int]]:
    """Judgements by true class (rows) and predicted class (columns), `count` of each."""
    return [[int(((truth == t) & (predicted == p)).sum()) for p in range(count)] for t in range(count)]


def interval(values: Doubles, prompt: Integers, draws: int = 2000, seed: int = 0) -> list[float]:
    """95 % bootstrap interval of the mean of `values` (n,), whole prompts drawn with replacement."""
    groups, inverse = np.unique(prompt, return_inverse=True)
    sums = np.bincount(inverse, weights=values, minlength=len(groups))
    counts = np.bincount(inverse, minlength=len(groups))
    picks = np.random.default_rng(seed).integers(0, len(groups), (draws, len(groups)))
    low, high = np.percentile(sums[picks].sum(1) / counts[picks].sum(1), [2.5, 97.5])
    return [float(low), float(high)]


def balanced_interval(hit: Doubles, truth: Integers, prompt: Integers, draws: int = 1000, seed: int = 0) -> list[float]:
    """95 % bootstrap interval of the balanced accuracy of `hit` (n,), whole prompts drawn with replacement."""
    classes, label = np.unique(truth, return_inverse=True)
    groups, inverse = np.unique(prompt, return_inverse=True)
    sums, counts = np.zeros((2, len(groups), len(classes)))
    np.add.at(sums, (inverse, label), hit)
    np.add.at(counts, (inverse, label), 1)
    picks = np.random.default_rng(seed).integers(0, len(groups), (draws, len(groups)))
    times = np.stack([np.bincount(pick, minlength=len(groups)) for pick in picks]).astype(np.float64)
    with np.errstate(invalid="ignore"):  # a replicate may lack a class
        rates = (times @ sums) / (times @ counts)
    low, high = np.percentile(np.nanmean(rates, axis=1), [2.5, 97.5])
    return [float(low), float(high)]


def nll(probability: Doubles, truth: Integers) -> float:
    """Mean negative log-likelihood of the true class; probability (n, C)."""
    return float(-np.log(np.maximum(probability[np.arange(len(truth)), truth], 1e-12)).mean())


def brier(probability: Doubles, truth: Integers) -> float:
    """Mean squared distance of the probabilities (n, C) from the truth."""
    return float(((probability - np.eye(probability.shape[1])[truth]) ** 2).sum(1).mean())


def reliability(probability: Doubles, truth: Integers, bins: int = 10) -> list[dict[str, float]]:
    """Calibration curve: judgements in bins of equal size by the confidence in their first class, least confident first."""
    confidence, hit = probability.max(1), probability.argmax(1) == truth
    parts = np.array_split(np.argsort(confidence, kind="stable"), bins)
    return [{"n": len(b), "confidence": float(confidence[b].mean()), "accuracy": float(hit[b].mean())} for b in parts if len(b)]


def ece(probability: Doubles, truth: Integers, draw: Integers | None = None, bins: int = 10, seed: int = 0) -> float:
    """Expected calibration error of the first class, less the error that a perfectly calibrated classifier would show.

    `draw` (n,) numbers repeated judgements of the same probes. They are not independent, so the result is the mean over draws.
    """
    return max(0.0, _calibration_error(probability, truth, draw, bins, seed))


def ece_interval(
    probability: Doubles, truth: Integers, prompt: Integers, draw: Integers | None = None, draws: int = 200, seed: int = 0
) -> list[float]:
    """95 % bootstrap interval of `ece`, whole prompts drawn with replacement.

    Resampling adds a bias to every replicate; the basic (reflected) interval cancels it.
    """
    draw = np.zeros(len(truth), np.int64) if draw is None else draw
    groups = [np.flatnonzero(prompt == q) for q in np.unique(prompt)]
    rng = np.random.default_rng(seed)
    estimate = _calibration_error(probability, truth, draw, seed=seed)
    values = []
    for _ in range(draws):
        rows = np.concatenate([groups[j] for j in rng.integers(0, len(groups), len(groups))])
        values.append(_calibration_error(probability[rows], truth[rows], draw[rows], trials=20, seed=seed))
    low, high = np.percentile(values, [2.5, 97.5])
    return [max(0.0, float(2 * estimate - high)), max(0.0, float(2 * estimate - low))]


def _calibration_error(
    probability: Doubles, truth: Integers, draw: Integers | None, bins: int = 10, seed: int = 0, trials: int = 200
) -> float:
    """The debiased error; negative if the judgements look better calibrated than chance allows."""
    rng = np.random.default_rng(seed)
    confidence, hit = probability.max(1), probability.argmax(1) == truth
    parts = [np.arange(len(truth))] if draw is None else [np.flatnonzero(draw == d) for d in np.unique(draw)]
    errors_of_draws = []
    for rows in parts:
        rows = rows[np.argsort(confidence[rows], kind="stable")]
        starts = [int(b[0]) for b in np.array_split(np.arange(len(rows)), bins) if len(b)]
        sorted_confidence = confidence[rows]
        outcomes = np.concatenate([hit[rows][None], rng.random((trials, len(rows))) < sorted_confidence]).astype(np.float64)
        errors = np.abs(np.add.reduceat(outcomes - sorted_confidence, starts, axis=1)).sum(1) / len(rows)
        errors_of_draws.append(errors[0] - errors[1:].mean())
    return float(np.mean(errors_of_draws))


def auroc(positive: Doubles, negative: Doubles) -> float:
    """Probability that a positive has a higher value than a negative; ties count half."""
    values = np.concatenate([positive, negative])
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    n, m = len(positive), len(negative)
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))


def oscr(hit: Booleans, known: Doubles, unknown: Doubles) -> float:
    """Area under correct classification rate of known probes over false positive rate of unknown ones (Dhamija et al. 2018).

    `known` (n,) and `unknown` (m,) are scores that are high for known probes; `hit` (n,) says whether a known probe's class is right.
    """
    thresholds = np.concatenate([[np.inf], np.sort(np.unique(np.concatenate([known, unknown])))[::-1]])
    right = np.sort(known[hit])
    wrong = np.sort(unknown)
    ccr = (len(right) - np.searchsorted(right, thresholds)) / len(known)
    fpr = (len(wrong) - np.searchsorted(wrong, thresholds)) / len(wrong)
    return float(np.trapezoid(ccr, fpr))


def ccr_at_fpr(hit: Booleans, known: Doubles, unknown: Doubles, rate: float = 0.05) -> float:
    """Share of known probes that are right and score higher than all but `rate` of the unknown probes."""
    return float((hit & (known > np.quantile(unknown, 1 - rate))).mean())


def fpr_at_tpr(known: Doubles, unknown: Doubles, rate: float = 0.95) -> float:
    """Share of unknown probes accepted by the highest threshold that accepts at least `rate` of the known probes."""
    threshold = np.sort(known)[math.floor(len(known) * (1 - rate) + 1e-9)]
    return float((unknown >= threshold).mean())


def open_set(hit: Booleans, known: Doubles, unknown: Doubles) -> dict[str, float]:
    """How well scores separate known probes from unknown ones; arguments as of `oscr`."""
    return {
        "auroc": auroc(known, unknown),
        "oscr": oscr(hit, known, unknown),
        "ccr_at_fpr5": ccr_at_fpr(hit, known, unknown),
        "fpr_at_tpr95": fpr_at_tpr(known, unknown),
    }


def conformal(
    probability: Doubles, truth: Integers, prompt: Integers, coverage: float = 0.9, splits: int = 50, seed: int = 0
) -> dict[str, float]:
    """Split conformal sets {c : p_c ≥ threshold} (Sadinle et al. 2019): mean coverage and size over splits by prompts."""
    groups, inverse = np.unique(prompt, return_inverse=True)
    true_probability = probability[np.arange(len(truth)), truth]
    rng = np.random.default_rng(seed)
    covered, sizes = [], []
    for _ in range(splits):
        calibration = (rng.permutation(len(groups)) < len(groups) / 2)[inverse]
        if calibration.all() or not calibration.any():
            continue
        n = int(calibration.sum())
        rank = int(np.floor((n + 1) * (1 - coverage)))  # the rank-th smallest; below the first, every class is in the set
        threshold = np.sort(true_probability[calibration])[rank - 1] if rank >= 1 else 0.0
        covered.append(float((true_probability[~calibration] >= threshold).mean()))
        sizes.append(float((probability[~calibration] >= threshold).sum(1).mean()))
    return (
        {"stated": coverage, "coverage": float(np.mean(covered)), "size": float(np.mean(sizes)), "splits": float(len(covered))}
        if covered
        else {}
    )
