"""Races: the rules on synthetic points, and the attributor on the zoo."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import resynth_fast
from resynth_fast import Attributor, images
from resynth_fast.errors import ConfigError, DeadlineError
from resynth_fast.resynthesis.executor import Executor
from resynth_fast.resynthesis.race import FOREIGN, Race
from resynth_fast.resynthesis.timing import Deadline
from resynth_fast.scoring.calibration import CalibrationPoint
from resynth_fast.scoring.prior import Prior, no_gallery, remaining_variance
from resynth_fast.scoring.score import score
from resynth_fast.types import Request

NAMES, DIMENSION = ("a", "b", "c"), 40
EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.png"))[:3]


def race(**changes):
    return Race(
        **{
            "names": NAMES,
            "seeds": range(7, 11),
            "within_trace": 1.0,
            "calibrated": lambda count: CalibrationPoint(count, 8, 1.0, -1.0),
            **changes,
        }
    )


class World:
    """Candidates whose pictures lie about a mean of their own; counts the requests."""

    def __init__(self, seed, spread=1.0, apart=3.0):
        rng = np.random.default_rng(seed)
        self.means = apart * rng.standard_normal((len(NAMES), DIMENSION)) / np.sqrt(DIMENSION)
        self.spread = spread / np.sqrt(DIMENSION)
        self.probe = self.means[0] + self.spread * rng.standard_normal(DIMENSION)
        self.asked = []

    def __call__(self, requests):
        self.asked.append(list(requests))
        return {request: self.picture(request) for request in requests}

    def picture(self, request):
        rng = np.random.default_rng([request.seed, NAMES.index(request.candidate), *request.prompt.encode()])
        return self.means[NAMES.index(request.candidate)] + self.spread * rng.standard_normal(DIMENSION)


def run(world, captions=("p",), **changes):
    known = [no_gallery(len(NAMES), DIMENSION)] * len(captions)
    return race(**changes)(captions, [world.probe] * len(captions), known, world)


@given(st.integers(0, 200), st.floats(0.1, 4))
def test_every_candidate_generates_once_and_seeds_are_used_in_order(seed: Any, apart: Any) -> None:
    world = World(seed, apart=apart)
    [standing] = run(world)
    assert [r.candidate for r in world.asked[0]] == list(NAMES)
    assert (standing.counts >= 1).all()
    assert (standing.counts <= 4).all()
    for i, name in enumerate(NAMES):
        assert [r.seed for asked in world.asked for r in asked if r.candidate == name] == list(range(7, 7 + standing.counts[i]))
    assert standing.stopped_by == ""
    assert standing.live.sum() == 1 or (standing.counts[standing.live] == 4).all()


@given(st.integers(0, 100))
def test_without_bounds_every_candidate_generates_all_references(seed: Any) -> None:
    [standing] = run(World(seed, apart=9), reach=np.inf)
    assert standing.counts.tolist() == [4, 4, 4]


@given(st.integers(0, 100), st.floats(0.5, 3))
def test_a_wider_reach_never_leaves_fewer_contenders_after_the_first_round(seed: Any, apart: Any) -> None:
    first = {}
    for reach in (1.0, 5.5, 20.0):
        world = World(seed, apart=apart)
        run(world, reach=reach)
        first[reach] = {r.candidate for r in world.asked[1]} if len(world.asked) > 1 else set()
    assert first[1.0] <= first[5.5] <= first[20.0]


@given(st.integers(0, 100), st.floats(0.5, 3))
def test_after_the_first_round_two_contend_and_the_one_behind_catches_up(seed: Any, apart: Any) -> None:
    world = World(seed, apart=apart)
    run(world)
    drawn = dict.fromkeys(NAMES, 1)
    for asked in world.asked[1:]:
        assert 1 <= len(asked) <= 2
        assert len({drawn[r.candidate] for r in asked}) == 1
        for r in asked:
            drawn[r.candidate] += 1


def test_a_candidate_that_fell_behind_can_contend_again() -> None:
    again = 0
    for seed in range(40):
        world = World(seed, apart=0.3)
        run(world)
        second = {r.candidate for r in world.asked[1]}
        again += any(r.candidate not in second for asked in world.asked[2:] for r in asked)
    assert again > 0


def threshold(world, above):
    """A calibration that puts a probe's consistency this far below the threshold with one reference each, and not below it with more."""
    ones = [world.picture(Request(name, "p", 7))[None] for name in NAMES]
    [[found]] = score(world.probe[None, None], [ones]).consistency
    return lambda count: CalibrationPoint(count, 8, 1.0, found + above if count == 1 else -1.0)


@pytest.mark.parametrize(("above", "draws_on"), [(0.9 * FOREIGN, True), (1.1 * FOREIGN, False)])
def test_a_probe_unlike_every_candidate_has_one_picture_of_each(above: Any, draws_on: Any) -> None:
    world = World(3, apart=0.3)
    [standing] = run(world, calibrated=threshold(world, above))
    assert (standing.counts.sum() > 3) == draws_on
    assert standing.live.any() == draws_on
    assert standing.stopped_by == ""


def test_near_the_unknown_threshold_even_a_clear_leader_generates_again() -> None:
    for above, drawn in ((-0.01, 3), (0.5 * FOREIGN, 5)):
        world = World(0, apart=30)
        [standing] = run(world, calibrated=threshold(world, above))
        assert standing.counts.sum() == drawn


def test_clearly_different_candidates_need_one_picture_each() -> None:
    [standing] = run(World(0, apart=30))
    assert standing.counts.tolist() == [1, 1, 1]


@given(st.integers(0, 50))
def test_a_race_does_not_depend_on_the_other_probes(seed: Any) -> None:
    world = World(seed, apart=1.5)
    alone = [run(world, (caption,))[0] for caption in "pqr"]
    together = run(world, tuple("rpq"))
    for a, b in zip(alone, [together[1], together[2], together[0]], strict=True):
        assert a.counts.tolist() == b.counts.tolist()


@given(st.integers(0, 100), st.integers(3, 12))
def test_the_budget_of_pictures_is_respected_and_reported(seed: Any, most: Any) -> None:
    world = World(seed, apart=0.3)
    [standing] = run(world, max_pictures=most)
    assert standing.counts.sum() <= most
    assert bool(standing.stopped_by) == (
        standing.counts.sum() == most and (standing.counts[standing.live] < 4).any() and standing.live.sum() > 1
    )


def test_a_costlier_candidate_must_be_likelier_to_generate_again() -> None:
    drawn = []
    for costs in ([1.0, 1.0, 1.0], [0.01, 0.01, 2.98]):
        worlds = [World(seed, apart=1.5) for seed in range(60)]
        drawn.append(sum(run(world, costs=np.array(costs))[0].counts[2] for world in worlds))
    assert drawn[1] < drawn[0]


def test_a_deadline_between_two_pictures_leaves_the_finished_ones() -> None:
    world = World(1, apart=0.3)
    [standing] = race()(
        ["p"], [world.probe], [no_gallery(3, DIMENSION)], lambda wanted: {r: world.picture(r) for r in wanted[:2] if r.seed == 7}
    )
    assert standing.counts.sum() == 2
    assert standing.stopped_by == "the deadline"


def test_a_deadline_before_any_picture_is_an_error() -> None:
    world = World(1)
    with pytest.raises(DeadlineError, match="before a single picture"):
        race()(["p"], [world.probe], [no_gallery(3, DIMENSION)], lambda wanted: {})


def test_a_further_picture_tells_less_of_a_candidate_with_more_pictures_or_a_gallery() -> None:
    left = remaining_variance(no_gallery(4, 2), np.array([1, 2, 3, 4]), 4)
    assert (np.diff(left) < 0).all()
    assert left[-1] == 0
    known = remaining_variance(Prior(np.zeros((4, 2)), np.full(4, 20.0), 3.0), np.array([1, 2, 3, 4]), 4)
    assert (known[:-1] < left[:-1]).all()


@pytest.fixture(scope="module")
def probes():
    return [images.read(path) for path in EXAMPLES]


def assert_same(found, expected):
    for a, b in zip(found, expected, strict=True):
        assert (a.status, a.label) == (b.status, b.label)
        assert [(c.name, len(c.resyntheses)) for c in a.candidates] == [(c.name, len(c.resyntheses)) for c in b.candidates]
        np.testing.assert_allclose([c.score for c in a.candidates], [c.score for c in b.candidates], rtol=1e-9)


def test_a_race_without_eliminations_is_the_exhaustive_run(probes: Any) -> None:
    exhaustive = Attributor.open(references=3, steps=1, threads=1)(probes)
    by_rounds = Attributor.open(references=3, steps=1, threads=1, max_pictures=99)(probes)
    assert_same(by_rounds, exhaustive)


def test_a_raced_verdict_does_not_depend_on_the_others_nor_on_their_captions(probes: Any) -> None:
    attributor = Attributor.open(references=3, steps=1, threads=1, race=True)
    alone = [attributor([probe])[0] for probe in probes]
    together = attributor([*probes[::-1], probes[0]])
    assert_same(together, [*alone[::-1], alone[0]])


def test_a_raced_verdict_reports_its_references(probes: Any) -> None:
    attributor = Attributor.open(references=3, steps=1, threads=1, race=True, max_pictures=5)
    for verdict in attributor(probes):
        drawn = sum(len(c.resyntheses) for c in verdict.candidates)
        assert 4 <= drawn <= 5
        assert verdict.provenance["race"]["pictures"] == drawn
        cut = verdict.provenance["race"]["stopped_by"]
        assert cut in (None, "5 pictures")
        assert any(w.startswith("generation was cut short by 5 pictures") for w in verdict.warnings) == bool(cut)


def test_a_candidate_without_a_picture_leaves_the_verdict_open(probes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    attributor = Attributor.open(references=2, steps=1, threads=1, deadline=1000)
    make = Executor.__call__

    def two_candidates(self, requests, **how):
        return make(self, [r for r in requests if r.candidate in ("zoo-flux", "zoo-sd-v")], **how)

    monkeypatch.setattr(Executor, "__call__", two_candidates)
    for verdict in attributor(probes):
        assert verdict.status in ("inconclusive", "unknown")
        assert verdict.label is None
        assert any("without a single picture, and so not excluded: zoo-sd, zoo-sd-twin" in w for w in verdict.warnings)
        assert np.isfinite([c.score for c in verdict.candidates]).all()


def test_generation_ends_near_its_deadline(probes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    attributor = Attributor.open(references=64, steps=1, threads=1, deadline=5.0)
    make = Executor._make

    def slowly(self, *wave):
        time.sleep(0.3)
        return make(self, *wave)

    monkeypatch.setattr(Executor, "_make", slowly)
    start = time.monotonic()
    [verdict] = attributor(probes[:1])
    assert time.monotonic() - start < 12  # without the limit it takes more than a minute
    assert verdict.provenance["race"]["stopped_by"] == "the deadline"
    assert any(w.startswith("generation was cut short by the deadline") for w in verdict.warnings)


def test_a_wave_that_would_miss_the_deadline_is_not_started() -> None:
    attributor = Attributor.open(references=1, steps=1, threads=1)
    assert attributor.references.executor([Request("zoo-sd", "p", 0)], deadline=Deadline(-1)) == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"race": True, "together": True}, "leave out race"),
        ({"deadline": 0.0}, "deadline is 0.0"),
        ({"deadline": float("nan")}, "deadline is nan"),
        ({"max_pictures": 3}, "max_pictures is 3; each of the 4 candidates"),
    ],
)
def test_impossible_limits_are_refused(options: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Attributor.open(**options)


@pytest.mark.parametrize(
    ("extra", "code"),
    [
        (["--deadline", "0.000001"], 5),
        (["--race", "--memory-budget", "45MB"], 0),
        (["--memory-budget", "1MB"], 4),
        (["--memory-budget", "much"], 2),
    ],
)
def test_the_command_line_respects_the_limits(extra: Any, code: Any) -> None:
    command = [sys.executable, "-P", "-m", "resynth_fast.cli", "attribute", str(EXAMPLES[0]), "--steps", "1", "--format", "json", *extra]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    if not code:
        schema = json.loads((Path(resynth_fast.__file__).parent / "schemas" / "record.schema.json").read_text())
        jsonschema.validate(json.loads(done.stdout), schema)
        [record] = json.loads(done.stdout)["records"]
        assert record["provenance"]["race"]["max_references"] == 2
        assert record["provenance"]["memory"]["peak_bytes"] <= 45_000_000
