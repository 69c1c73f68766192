"""When a candidate is named, and when not: ties, single candidates, missing calibrations, and a fitted probability that it must reach."""

import json

import numpy as np
import pytest

from resynth_fast.errors import BundleError
from resynth_fast.kernels.similarity import Scores
from resynth_fast.scoring.calibration import NEVER, UNCALIBRATED, Calibration, CalibrationPoint, fit_point
from resynth_fast.scoring.decision import decide
from resynth_fast.types import Doubles

POINT = CalibrationPoint(2, 8, 1.0, 0.2)


def judged(*scores: float, copies: tuple[tuple[float, ...], ...] = (), consistency: float = 0.5) -> Scores:
    """One probe with these scores by the candidates, and those of its perturbed copies."""
    rows = np.array([scores, *copies], np.float64)[None]
    return Scores(rows, np.full(rows.shape[:2], consistency))


def test_a_clear_lead_is_named_without_a_reason() -> None:
    decision = decide(judged(0.0, 5.0, 1.0), POINT)
    assert (decision.status, decision.order[0], decision.reason) == ("attributed", 1, "")


@pytest.mark.parametrize(
    ("scores", "reason"),
    [
        (judged(3.0), "A single candidate cannot be compared"),
        (judged(7.0, 7.0), "explain the picture equally well"),
        (judged(-7e3, -7e3 - 1e-7, -9e9), "explain the picture equally well"),
        (judged(0.0, 0.1, 0.2), "No candidate is likelier than all others together"),
        (judged(0.0, 5.0, copies=((1.0, 0.0), (1.0, 0.0), (0.0, 1.0))), "after 2 of 3 mild changes"),
    ],
)
def test_a_picture_that_two_explain_alike_is_inconclusive(scores: Scores, reason: str) -> None:
    decision = decide(scores, CalibrationPoint(1, 8, 1e4 if "equally" in reason else 1.0, -1.0))
    assert decision.status == "inconclusive"
    assert reason in decision.reason


def test_a_source_under_two_names_is_never_named_and_another_one_may_be() -> None:
    assert decide(judged(0.0, 5.0, 1.0), POINT, identities=("x", "y", "y")).status == "inconclusive"
    assert decide(judged(0.0, 1.0, 9.0), POINT, identities=("x", "x", "y")).status == "attributed"


def test_below_the_threshold_nobody_is_named_and_the_numbers_say_why() -> None:
    decision = decide(judged(0.0, 5.0, consistency=0.1), POINT)
    assert decision.status == "unknown"
    assert "0.10" in decision.reason
    assert "0.20" in decision.reason


def test_a_stored_default_ranks_and_never_names() -> None:
    stored = Calibration.from_json(json.loads(json.dumps(UNCALIBRATED.to_json())), "x")
    decision = decide(judged(0.0, 500.0, consistency=-0.99), stored.at(2, 8), measured=stored.measured)
    assert decision.status == "inconclusive"
    assert decision.order == (1, 0)
    assert "not calibrated" in decision.reason


def test_a_default_stored_by_an_earlier_version_is_not_taken_for_a_measurement() -> None:
    point = {"references": 1, "steps": 0, "temperature": 4.5, "unknown_below": -1.0}
    assert not Calibration.from_json({"points": [point], "source": "x"}, "x").measured
    assert Calibration.from_json({"points": [{**point, "unknown_below": 0.3}], "source": "x"}, "x").measured


@pytest.mark.parametrize(
    "change", [{"temperature": 0.0}, {"attributed_from": 0.4}, {"attributed_from": float("nan")}, {"unknown_below": float("inf")}]
)
def test_a_calibration_out_of_range_is_broken(change: dict[str, float]) -> None:
    entry = Calibration((POINT,), "x").to_json()
    entry["points"][0] |= change
    with pytest.raises(BundleError, match="calibration is broken"):
        Calibration.from_json(entry, "x")


def noisy_probes(count: int, seed: int, overlap: float) -> tuple[Doubles, Doubles, list[int]]:
    """Scores of probes by three candidates, of which a part gets the scores of a random other source with as much confidence."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, count)
    shown = np.where(rng.random(count) < overlap, rng.integers(0, 3, count), truth)
    return rng.normal(size=(count, 3)) + 4 * np.eye(3)[shown], rng.random(count), truth.tolist()


@pytest.mark.parametrize("overlap", [0.0, 0.1, 0.25, 0.6])
def test_of_fresh_probes_few_are_named_wrongly_by_a_stored_threshold(overlap: float) -> None:
    shares, named = [], []
    for seed in range(20):
        fitted = fit_point(2, 8, *noisy_probes(200, seed, overlap))
        stored = Calibration.from_json(json.loads(json.dumps(Calibration((fitted,), "x").to_json())), "x").at(2, 8)
        scores, consistency, truth = noisy_probes(400, 1000 + seed, overlap)
        decisions = [decide(judged(*row, consistency=c), stored) for row, c in zip(scores, consistency, strict=True)]
        attributed = [d.status == "attributed" for d in decisions]
        shares.append(np.mean([a and d.order[0] != t for a, d, t in zip(attributed, decisions, truth, strict=True)]))
        named.append(np.mean(attributed))
    assert np.mean(shares) <= 0.055  # 0.05, and the luck of 8,000 probes
    assert np.mean(named) > (0.85 if overlap < 0.05 else 0.0)


def test_too_few_probes_allow_nobody_to_be_named() -> None:
    scores, consistency, truth = 9 * np.eye(2)[[0, 1] * 9], np.ones(18), [0, 1] * 9
    assert fit_point(1, 0, scores, consistency, truth).attributed_from == NEVER
    enough = fit_point(1, 0, np.concatenate([scores, scores[:1]]), np.ones(19), [*truth, 0])
    assert enough.attributed_from == 0.5
    decision = decide(judged(0.0, 99.0), CalibrationPoint(1, 0, 1.0, -1.0, NEVER))
    assert decision.status == "inconclusive"
    assert "errs too often" in decision.reason


def test_degraded_copies_lower_the_threshold_of_unknown_and_not_that_of_a_name() -> None:
    scores, consistency, truth = noisy_probes(200, 5, 0.0)
    rows, labels = np.repeat(scores, 2, axis=0), np.repeat(truth, 2)
    values = np.repeat(np.asarray(consistency, float), 2)
    values[1::2] -= 1.0
    plain, fitted = fit_point(2, 8, scores, consistency, truth), fit_point(2, 8, rows, values, labels, copies=2)
    assert fitted.unknown_below < plain.unknown_below
    assert fitted.consistent_from == plain.unknown_below
    between = (fitted.unknown_below + fitted.consistent_from) / 2
    decision = decide(Scores(np.array([[[5.0, 0.0, -5.0]]]), np.array([[between]])), fitted)
    assert (decision.status, "is too likely" in decision.reason) == ("inconclusive", True)
    decision = decide(Scores(np.array([[[5.0, 0.0, -5.0]]]), np.array([[fitted.consistent_from]])), fitted)
    assert decision.status == "attributed"
