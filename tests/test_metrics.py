"""Metrics against cases worked by hand, against scipy, and on data whose right answer is known."""

from typing import Any

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from resynth_fast.evaluation import metrics


def calibrated(n, classes, seed, sharpness=1.5):
    """Probabilities (n, C) and truths drawn from them."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, classes)) * sharpness
    probability = np.exp(logits)
    probability /= probability.sum(1, keepdims=True)
    truth = (rng.random((n, 1)) > probability.cumsum(1)).sum(1).clip(0, classes - 1)
    return probability, truth


def test_balanced_accuracy_weighs_classes_alike() -> None:
    hit, truth = np.array([True, True, True, False, True]), np.array([0, 0, 0, 0, 3])
    assert metrics.balanced_accuracy(hit, truth) == pytest.approx((0.75 + 1) / 2)


def test_macro_f1_by_hand() -> None:
    truth, predicted = np.array([0, 0, 1, 1, 2]), np.array([0, 1, 1, 1, 0])
    # class 0: P 1/2, R 1/2; class 1: P 2/3, R 1; class 2: never predicted
    assert metrics.macro_f1(predicted, truth) == pytest.approx((0.5 + 0.8 + 0) / 3)


def test_nll_and_brier_by_hand() -> None:
    probability, truth = np.array([[0.5, 0.5], [0.1, 0.9]]), np.array([0, 1])
    assert metrics.nll(probability, truth) == pytest.approx(-(np.log(0.5) + np.log(0.9)) / 2)
    assert metrics.brier(probability, truth) == pytest.approx((0.5 + 0.02) / 2)
    assert metrics.nll(np.array([[1.0, 0.0]]), np.array([0])) == 0
    assert np.isfinite(metrics.nll(np.array([[1.0, 0.0]]), np.array([1])))


@pytest.mark.parametrize("grid", [0.01, 1.0, 10.0])
def test_auroc_is_the_rank_statistic_ties_counted_half(grid: Any) -> None:
    rng = np.random.default_rng(0)
    a, b = (np.round(rng.normal(shift, 1, n) / grid) * grid for shift, n in ((0.7, 83), (0, 61)))
    assert metrics.auroc(a, b) == pytest.approx(mannwhitneyu(a, b).statistic / (len(a) * len(b)))
    assert metrics.auroc(a, b) == pytest.approx(1 - metrics.auroc(b, a))
    assert metrics.auroc(np.ones(3), np.ones(4)) == 0.5


def test_open_set_measures_of_a_perfect_and_a_useless_scorer() -> None:
    hit = np.ones(40, bool)
    high, low, same = np.linspace(2, 3, 40), np.linspace(0, 1, 30), np.ones(30)
    assert metrics.oscr(hit, high, low) == 1
    assert metrics.ccr_at_fpr(hit, high, low) == 1
    assert metrics.fpr_at_tpr(high, low) == 0
    assert metrics.oscr(hit, np.ones(40), same) == pytest.approx(0.5)
    assert metrics.fpr_at_tpr(np.ones(40), same) == 1
    assert metrics.ccr_at_fpr(hit, np.ones(40), same) == 0
    hit[:10] = False  # what is attributed wrongly can be no correct classification, however known it looks
    assert metrics.oscr(hit, high, low) == pytest.approx(0.75)
    assert metrics.ccr_at_fpr(hit, high, low) == pytest.approx(0.75)


def test_oscr_by_hand() -> None:
    # From the top: right known .9, unknown .8, wrong known .7, right known .6, unknown .5
    value = metrics.oscr(np.array([True, False, True]), np.array([0.9, 0.7, 0.6]), np.array([0.8, 0.5]))
    assert value == pytest.approx(0.5 * 1 / 3 + 0.5 * 2 / 3)


@pytest.mark.parametrize("grid", [0.01, 0.5])
@pytest.mark.parametrize("size", [1, 19, 30, 100])
def test_open_set_measures_follow_their_definitions(size: int, grid: float) -> None:
    """A threshold at every value, from which probes are accepted; ties and few probes included."""
    rng = np.random.default_rng(size)
    known, unknown = (np.round(rng.normal(shift, size=count) / grid) * grid for shift, count in ((1, size), (0, 40)))
    hit = rng.random(size) < 0.7
    thresholds = np.unique(np.concatenate([known, unknown]))[::-1]
    rates = [((known >= t).mean(), (unknown >= t).mean(), (hit & (known >= t)).mean()) for t in thresholds]
    found = metrics.open_set(hit, known, unknown)
    assert found["fpr_at_tpr95"] == pytest.approx(next(fpr for tpr, fpr, _ in rates if tpr >= 0.95))
    ccr, fpr = [0.0, *(row[2] for row in rates)], [0.0, *(row[1] for row in rates)]
    assert found["oscr"] == pytest.approx(sum((a + b) / 2 * (y - x) for a, b, x, y in zip(ccr, ccr[1:], fpr, fpr[1:], strict=False)))
    assert set(metrics.OPEN_SET) < set(found)


def test_ccr_and_fpr_at_given_rates() -> None:
    unknown = np.arange(100) / 100
    assert metrics.ccr_at_fpr(np.ones(4, bool), np.array([0.2, 0.93, 0.96, 2.0]), unknown) == 0.5
    known = np.arange(100) / 100
    assert metrics.fpr_at_tpr(known, np.array([0.0, 0.04, 0.06, 0.5])) == 0.5


def test_calibration_error_is_zero_if_calibrated_and_correct_if_overconfident() -> None:
    probability, truth = calibrated(4000, 5, seed=1)
    assert metrics.ece(probability, truth) < 0.008
    sure = np.full((4000, 2), [0.9, 0.1])
    hit = np.arange(4000) % 10 < 7
    # What chance alone would show is subtracted: E|mean error of 400| = sqrt(2/π · .09 / 400).
    assert metrics.ece(sure, np.where(hit, 0, 1)) == pytest.approx(0.2 - np.sqrt(2 / np.pi * 0.09 / 400), abs=0.002)


def test_calibration_error_takes_repeated_judgements_for_one_trial() -> None:
    """Five copies of the same judgements know no more than one: taken for independent trials they look miscalibrated."""
    probability, truth = calibrated(150, 4, seed=5)
    many, truths, draw = np.tile(probability, (5, 1)), np.tile(truth, 5), np.repeat(np.arange(5), 150)
    once = metrics.ece(probability, truth)
    assert metrics.ece(many, truths, draw) == pytest.approx(once, abs=0.01)
    assert metrics.ece(many, truths) > metrics.ece(many, truths, draw) + 0.01


def test_interval_of_the_calibration_error_covers_it() -> None:
    probability, truth = calibrated(600, 3, seed=2)
    prompt = np.repeat(np.arange(60), 10)
    low, high = metrics.ece_interval(probability, truth, prompt)
    assert low == 0 <= high < 0.05
    wrong = np.full((600, 2), [0.95, 0.05])
    truth = (np.random.default_rng(0).random(600) < 0.3).astype(int)  # right in 70 %
    low, high = metrics.ece_interval(wrong, truth, prompt)
    assert 0.15 < low < metrics.ece(wrong, truth) < high < 0.35


def test_reliability_lists_every_judgement_once() -> None:
    probability, truth = calibrated(205, 3, seed=3)
    table = metrics.reliability(probability, truth)
    assert sum(row["n"] for row in table) == 205
    assert sum(row["n"] * row["accuracy"] for row in table) == pytest.approx((probability.argmax(1) == truth).sum())
    assert [row["confidence"] for row in table] == sorted(row["confidence"] for row in table)
    assert [row["n"] for row in metrics.reliability(probability[:3], truth[:3])] == [1, 1, 1]


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
def test_conformal_sets_hold_the_truth_as_often_as_stated(coverage: Any) -> None:
    probability, truth = calibrated(3000, 6, seed=4)
    found = metrics.conformal(probability, truth, np.repeat(np.arange(300), 10), coverage)
    assert found["splits"] == 50
    assert found["coverage"] == pytest.approx(coverage, abs=0.015)
    assert 1 < found["size"] < 6


def test_conformal_sets_of_the_certain_are_small_and_those_of_the_few_hold_everything() -> None:
    certain, truth = np.tile(np.eye(4), (50, 1)), np.tile(np.arange(4), 50)
    found = metrics.conformal(certain, truth, np.arange(200))
    assert (found["coverage"], found["size"]) == (1, 1)
    few = metrics.conformal(np.full((4, 4), 0.25), np.arange(4), np.arange(4))
    assert (few["coverage"], few["size"]) == (1, 4)  # two calibration cases cannot rule anything out
    assert metrics.conformal(certain, truth, np.zeros(200, int)) == {}  # one prompt cannot be split


def test_intervals_hold_the_mean_and_grow_when_prompts_differ() -> None:
    rng = np.random.default_rng(0)
    prompt, truth = np.repeat(np.arange(40), 10), np.tile(np.arange(2), 200)
    scattered = rng.random(400) < 0.7
    grouped = (rng.random(40) < 0.7)[prompt]  # a prompt is hit or missed as a whole
    widths = []
    for hit in (scattered, grouped):
        low, high = metrics.interval(hit.astype(float), prompt)
        assert low < hit.mean() < high
        balanced_low, balanced_high = metrics.balanced_interval(hit.astype(float), truth, prompt)
        assert balanced_low < metrics.balanced_accuracy(hit, truth) < balanced_high
        widths.append((high - low, balanced_high - balanced_low))
    assert widths[1][0] > 2 * widths[0][0]
    assert widths[1][1] > 2 * widths[0][1]
    # A mean of n independent hits: ± 1.96 sqrt(p (1 − p) / n)
    assert widths[0][0] == pytest.approx(2 * 1.96 * np.sqrt(0.7 * 0.3 / 400), rel=0.25)


def test_balanced_interval_survives_prompts_without_a_class() -> None:
    hit, truth, prompt = np.array([1.0, 0.0, 1.0]), np.array([0, 0, 1]), np.array([0, 1, 2])
    low, high = metrics.balanced_interval(hit, truth, prompt)
    assert 0 <= low <= high <= 1
