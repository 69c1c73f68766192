"""The stage timer adds up what it sees; a deadline refuses for good once it has refused."""

import math
import time

import numpy as np
import pytest

from resynth_fast import Attributor
from resynth_fast.resynthesis.preparation import FeatureExtraction
from resynth_fast.resynthesis.timing import STAGES, Deadline, StageTimer
from resynth_fast.scheduler import CostTable


class Clock:
    """A clock that a test advances."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 100.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now_s)
        monkeypatch.setattr(time, "monotonic", lambda: self.now_s)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_a_stage_inside_another_is_taken_from_it_by_its_share_of_the_threads(clock: Clock) -> None:
    timer = StageTimer()
    with timer.stage("generate"):
        clock.now_s += 4
        with timer.stage("features", inside="generate", threads=2):
            clock.now_s += 2
    with timer.stage("generate"):
        clock.now_s += 1
    assert timer.ms == {stage: {"generate": 6000.0, "features": 1000.0}.get(stage, 0.0) for stage in STAGES}
    assert timer.per_probe(2) == {stage: ms / 2 for stage, ms in timer.ms.items()} | {"total": 3500.0}


def test_a_stage_that_fails_is_counted(clock: Clock) -> None:
    timer = StageTimer()

    def fail() -> None:
        with timer.stage("score"):
            clock.now_s += 3
            raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"):
        fail()
    assert timer.ms["score"] == 3000


def test_a_deadline_allows_what_ends_in_time_and_nothing_after_the_first_refusal(clock: Clock) -> None:
    deadline = Deadline.after(2.0, count=3, spent_s=1.0)
    assert deadline.finite
    assert deadline.allows(5.0)
    clock.now_s += 4
    assert deadline.allows(1.0)
    assert not deadline.allows(1.5)
    assert not deadline.allows(0.0), "a cheaper wave began after a refusal"


def test_without_seconds_there_is_no_deadline(clock: Clock) -> None:
    deadline = Deadline.after(None, count=3, spent_s=1e9)
    assert not deadline.finite
    assert deadline.allows(math.inf) is True


def test_features_are_forecast_from_the_cost_table_once_they_were_measured() -> None:
    attributor = Attributor.open(["zoo:zoo-sd-v"], references=1, steps=1, threads=1)
    attributor.pool.costs = CostTable()
    features = FeatureExtraction(attributor.space, attributor.pool)
    assert features.forecast_s(10) == 0, "a guess must not stop a run"
    features([np.full((64, 64, 3), level, np.uint8) for level in (0, 90, 200)])
    assert features.forecast_s(1) > 0
    assert features.forecast_s(10) == pytest.approx(10 * features.forecast_s(1))
    assert FeatureExtraction(attributor.space, attributor.pool).forecast_s(1) == features.forecast_s(1), "the table is the pool's"
