"""Metrics of closed- and open-set attribution; intervals by bootstrap over prompts, never over pictures."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]


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


def interval(values: Doubles, prompt: Integers, draws: int = 2000, seed: int = 0) -> list[float]:
    """95 % bootstrap interval of the mean of `values` (n,), whole prompts drawn with replacement."""
    groups, inverse = np.unique(prompt, return_inverse=True)
    sums = np.bincount(inverse, weights=values, minlength=len(groups))
    counts = np.bincount(inverse, minlength=len(groups))
    picks = np.random.default_rng(seed).integers(0, len(groups), (draws, len(groups)))
    low, high = np.percentile(sums[picks].sum(1) / counts[picks].sum(1), [2.5, 97.5])
    return [float(low), float(high)]


def nll(probability: Doubles, truth: Integers) -> float:
    """Mean negative log-likelihood of the true class; probability (n, C)."""
    return float(-np.log(probability[np.arange(len(truth)), truth] + 1e-12).mean())


def brier(probability: Doubles, truth: Integers) -> float:
    """Mean squared distance of the probabilities (n, C) from the truth."""
    return float(((probability - np.eye(probability.shape[1])[truth]) ** 2).sum(1).mean())


def ece(probability: Doubles, truth: Integers, bins: int = 10, seed: int = 0) -> float:
    """Expected calibration error of the first class, debiased: what a perfectly calibrated classifier would show is subtracted."""
    confidence, hit = probability.max(1), probability.argmax(1) == truth
    order = np.array_split(np.argsort(confidence), bins)

    def error(outcome: Booleans) -> float:
        return sum(len(b) * abs(float(outcome[b].mean()) - float(confidence[b].mean())) for b in order if len(b)) / len(confidence)

    rng = np.random.default_rng(seed)
    expected = float(np.mean([error(rng.random(len(confidence)) < confidence) for _ in range(200)]))
    return max(0.0, error(hit) - expected)


def auroc(positive: Doubles, negative: Doubles) -> float:
    """Probability that a positive's value lies above a negative's, ties counted half."""
    values = np.concatenate([positive, negative])
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    n, m = len(positive), len(negative)
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))
