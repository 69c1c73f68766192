"""Lanes run items concurrently: results keep their order, and an error stops all work that has not started."""

import threading
import time
from typing import Any

import pytest

from resynth_fast.engines.lanes import Lanes


@pytest.mark.parametrize("count", [1, 3])
def test_results_are_in_the_order_of_the_items(count: Any) -> None:
    def late_first(i):
        time.sleep(0.01 * (5 - i))
        return 10 * i

    assert Lanes(count).map(late_first, range(5)) == [0, 10, 20, 30, 40]
    assert Lanes(count).map(late_first, []) == []


def test_exactly_as_many_items_run_at_once_as_there_are_lanes() -> None:
    three = threading.Barrier(3)
    running, most = set(), 0

    def work(i):
        nonlocal most
        running.add(i)
        three.wait(timeout=10)  # passes only if two other lanes run now
        most = max(most, len(running))
        time.sleep(0.02)
        running.discard(i)

    Lanes(3).map(work, range(3))
    Lanes(3).map(work, range(6))
    assert most == 3


@pytest.mark.parametrize("count", [1, 2])
def test_the_first_error_is_raised_and_no_further_item_starts(count: Any) -> None:
    begun = []

    def work(i):
        begun.append(i)
        time.sleep(0.02)
        if i == 0:
            raise ValueError("the first")
        if i == 1:
            raise KeyError("the second")

    with pytest.raises(ValueError, match="the first"):
        Lanes(count).map(work, range(40))
    after = len(begun)
    assert after < 10
    time.sleep(0.05)
    assert len(begun) == after


def test_the_caller_runs_beside_the_lanes_and_its_error_stops_them() -> None:
    reached, begun = threading.Event(), []
    with Lanes(2).running(lambda _: reached.wait(timeout=10), [0, 1]) as results:
        reached.set()  # not reached if the lanes ran before the caller
        assert results() == [True, True]

    def work(i):
        begun.append(i)
        time.sleep(0.02)

    with pytest.raises(KeyboardInterrupt), Lanes(2).running(work, range(40)):
        raise KeyboardInterrupt
    assert len(begun) <= 4
