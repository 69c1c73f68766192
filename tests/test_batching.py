"""Concurrent calls of an engine run as one batch, get the results of a call alone, and never wait for ever."""

import gc
import random
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from resynth_fast import backends, zoo
from resynth_fast.candidates.engine import EngineCandidate
from resynth_fast.devices.base import CpuDevice
from resynth_fast.engines import batching
from resynth_fast.engines import pool as engines
from resynth_fast.engines.batching import DynamicBatcher
from resynth_fast.engines.pool import EnginePool
from resynth_fast.errors import BundleError, DeviceError

SOON_S = 30
"""A time limit that only a deadlock reaches."""


class Engine:
    """Computes `y` = 2 x, row by row. It refuses NaN, and more rows than it can hold. While `shut`, a call blocks until it is opened."""

    fallback = ""

    def __init__(self, holds=1 << 30):
        self.calls, self.holds, self.open = [], holds, threading.Event()
        self.open.set()
        self.inside = threading.Lock()
        self.device = CpuDevice()

    def run(self, inputs):
        assert not self.inside.locked(), "two calls at once"
        with self.inside:
            self.calls.append(inputs["x"][:, 0].tolist())
            assert self.open.is_set() or self.open.wait(SOON_S)  # an interrupted wait can keep its lock
            if len(inputs["x"]) > self.holds:
                raise DeviceError("out of memory")
            if np.isnan(inputs["x"]).any():
                raise BundleError("not a number")
            return {"y": 2 * inputs["x"]}


def rows(*values, width=3, dtype=np.float32):
    return {"x": np.repeat(np.array(values, dtype)[:, None], width, axis=1)}


def meet(merged, engine, calls, run=None):
    """Futures of `calls`, queued in order behind the first, which is running. `run` replaces the engine's own method."""
    engine.open.clear()
    workers = ThreadPoolExecutor(len(calls))
    futures = []
    for i, call in enumerate(calls):
        futures.append(workers.submit(run or merged.run, call))
        until(lambda i=i: len(merged._queue) == i + 1 and engine.calls)
    engine.calls.clear()
    engine.open.set()
    workers.shutdown()
    return futures


def several():
    return 2


def until(done):
    deadline = time.monotonic() + SOON_S
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.0005)


@pytest.mark.parametrize("holders", [1, 2])
def test_a_single_caller_runs_ahead_of_the_device_and_several_wait_for_it(holders: Any) -> None:
    engine, waited = Engine(), []
    engine.device.synchronize = lambda: waited.append(engine.calls[-1])
    DynamicBatcher(engine, lambda: holders).run(rows(3))
    assert waited == [[3]][: holders - 1]


def test_queued_calls_of_equal_shape_run_in_order_as_one_batch() -> None:
    engine = Engine()
    merged = DynamicBatcher(engine, several, most_rows=4)
    calls = [
        rows(0),
        rows(1, 2),
        rows(3, width=2),
        rows(4),
        rows(5, dtype=np.float64),
        rows(6),
        rows(7, 8),
        rows(9, 10, 11),
        rows(12, 13, 14),
    ]
    for call, future in zip(calls, meet(merged, engine, calls), strict=True):
        np.testing.assert_array_equal(future.result()["y"], 2 * call["x"])
        assert future.result()["y"].dtype == call["x"].dtype
    assert engine.calls == [[1, 2, 4, 6], [3], [5], [7, 8], [9, 10, 11], [12, 13, 14]]


def test_a_batch_is_its_first_call_times_a_power_of_two_so_that_devices_see_few_sizes() -> None:
    engine = Engine()
    for future in meet(DynamicBatcher(engine, several), engine, [rows(i, i) for i in range(7)]):
        future.result()
    assert [len(call) for call in engine.calls] == [8, 4]


def test_an_error_reaches_only_the_call_that_causes_it() -> None:
    engine = Engine()
    calls = [rows(0), rows(1), rows(np.nan), rows(3), {}, rows(5)]
    futures = meet(DynamicBatcher(engine, several), engine, calls)
    for i in (0, 1, 3, 5):
        np.testing.assert_array_equal(futures[i].result()["y"], rows(2 * i)["x"])
    with pytest.raises(BundleError, match="not a number"):
        futures[2].result()
    with pytest.raises(KeyError):
        futures[4].result()


def test_a_batch_that_does_not_fit_into_memory_runs_call_by_call_from_then_on() -> None:
    engine = Engine(holds=2)
    merged = DynamicBatcher(engine, several)
    for tries in (1, 0):
        for i, future in enumerate(meet(merged, engine, [rows(i) for i in range(5)])):
            np.testing.assert_array_equal(future.result()["y"], rows(2 * i)["x"])
        assert sum(len(call) > engine.holds for call in engine.calls) == tries


def test_an_engine_whose_outputs_are_not_rows_runs_call_by_call() -> None:
    engine = Engine()
    merged = DynamicBatcher(
        SimpleNamespace(fallback="", device=engine.device, run=lambda inputs: {"sum": engine.run(inputs)["y"].sum(0)}), several
    )
    for i, future in enumerate(meet(merged, engine, [rows(i) for i in range(4)])):
        np.testing.assert_array_equal(future.result()["sum"], [2 * i] * 3)


def test_an_interrupt_inside_the_engine_is_raised_in_its_own_thread() -> None:
    engine = Engine()
    merged = DynamicBatcher(engine, several)

    def interrupted(inputs):
        found = engine.run(inputs)
        if threading.current_thread() is victim:
            raise KeyboardInterrupt
        return found

    merged._engine = SimpleNamespace(run=interrupted)
    caught = []

    def work():
        try:
            merged.run(rows(0))
        except KeyboardInterrupt:
            caught.append(True)

    engine.open.clear()
    victim = None
    with ThreadPoolExecutor(3) as workers:
        running = workers.submit(merged.run, rows(9))
        until(lambda: engine.calls)
        victim = threading.Thread(target=work)
        victim.start()
        until(lambda: len(merged._queue) == 2)
        others = [workers.submit(merged.run, rows(i)) for i in (1, 2)]
        until(lambda: len(merged._queue) == 4)
        engine.open.set()
        for i, future in zip((9, 1, 2), [running, *others], strict=True):
            np.testing.assert_array_equal(future.result(SOON_S)["y"], rows(2 * i)["x"])
    victim.join()
    assert caught
    assert not merged._queue


class Interrupt(BaseException):
    pass


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timer to interrupt with")
def test_interrupts_at_any_moment_leave_no_call_waiting() -> None:
    """The main thread is interrupted repeatedly while it queues, waits, runs and returns; the other threads get all their rows."""
    engine = Engine()
    merged = DynamicBatcher(engine, several)
    armed, interrupts, over = False, 0, False

    def interrupt(signum, frame):
        if armed:
            raise Interrupt

    def work(seed):
        done = 0
        while not over:
            assert (merged.run(rows(seed, done))["y"] == rows(2 * seed, 2 * done)["x"]).all()
            done += 1
        return done

    rng = random.Random(0)
    before = signal.signal(signal.SIGALRM, interrupt)
    gc.disable()  # an interrupt inside its callbacks would be lost
    workers = ThreadPoolExecutor(3)
    try:
        others = [workers.submit(work, i) for i in range(3)]
        for _ in range(300):
            try:
                armed = True
                signal.setitimer(signal.ITIMER_REAL, rng.uniform(2e-5, 2e-3))
                while True:
                    assert (merged.run(rows(7))["y"] == 14).all()
            except Interrupt:
                armed = False
                interrupts += 1
    finally:
        over = True
        signal.signal(signal.SIGALRM, before)
        gc.enable()
    assert all(other.result(SOON_S) for other in others)
    assert interrupts == 300
    assert not merged._queue


def test_many_calls_of_many_threads_each_get_their_own_rows() -> None:
    engine = Engine()

    def run(inputs):
        time.sleep(1e-4)  # other calls arrive meanwhile
        return engine.run(inputs)

    merged = DynamicBatcher(SimpleNamespace(fallback="", device=engine.device, run=run), several, most_rows=8)

    def work(seed):
        rng, asked = random.Random(seed), 0
        for _ in range(300):
            call = rows(*(rng.random() for _ in range(rng.randint(1, 3))), width=rng.randint(1, 2))
            np.testing.assert_array_equal(merged.run(call)["y"], 2 * call["x"])
            asked += len(call["x"])
        return asked

    with ThreadPoolExecutor(8) as workers:
        asked = sum(workers.map(work, range(8), timeout=SOON_S))
    assert not merged._queue
    assert len(engine.calls) < 8 * 300, "none was merged"
    assert sum(map(len, engine.calls)) == asked


class Device:
    """A backend whose engines stand in for a device's: ONNX Runtime with two threads, but with a device."""

    runs_on_caller_thread = False

    def __init__(self, watch):
        self.library, self.watch = backends.get("onnxruntime"), watch

    def version(self):
        return "device"

    def load(self, model, *, threads):
        engine = self.library.load(model, threads=2)

        def run(inputs):
            self.watch(inputs)
            return engine.run(inputs)

        return SimpleNamespace(fallback="", device=CpuDevice(), run=run)


def test_walks_at_different_steps_share_batches_and_give_the_same_pictures_as_alone() -> None:
    steps, prompts, timesteps, begun = 8, zoo.prompts()[:4], [], threading.Event()

    def watch(inputs):
        if "timestep" in inputs:
            timesteps.append(inputs["timestep"].tolist())
            if len(timesteps) == 2:
                begun.set()
            time.sleep(0.005)  # time for other threads to arrive

    candidate = EngineCandidate(zoo.bundle("zoo-sd"), EnginePool(Device(watch)))
    candidate.encode(prompts)

    def walk(i):
        if i >= 2:
            begun.wait(SOON_S)
        return candidate.make([prompts[i]], [i], steps)[0]

    with ThreadPoolExecutor(4) as workers:
        together = list(workers.map(walk, range(4)))
    assert max(len(set(call)) for call in timesteps) > 1
    assert len(timesteps) < 4 * steps
    assert sum(map(len, timesteps)) == 4 * steps * candidate.work(steps).rows
    timesteps.clear()
    np.testing.assert_array_equal(together, [candidate.make([prompt], [i], steps)[0] for i, prompt in enumerate(prompts)])
    assert len(timesteps) == 4 * steps


def test_the_time_of_a_batch_is_divided_by_rows_and_waiting_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock is fake: a call advances it by 10 s, and by 1 s for each row."""
    clock, engine, told = 0.0, Engine(), []

    def run(inputs):
        nonlocal clock
        found = engine.run(inputs)
        clock += 10 + len(inputs["x"])
        return found

    now = SimpleNamespace(perf_counter=lambda: clock)
    monkeypatch.setattr(engines, "time", now)
    monkeypatch.setattr(batching, "time", now)
    pool = EnginePool(
        SimpleNamespace(runs_on_caller_thread=False, load=lambda model, threads: SimpleNamespace(fallback="", device=CpuDevice(), run=run))
    )
    monkeypatch.setattr(pool.costs, "ran", lambda graph, rows, seconds: told.append((rows, seconds)))
    tagger = zoo.bundle(zoo.TAGGER).components["tagger"]

    def use(call):
        with pool.hold(tagger, rows=len(call["x"])) as held:
            return held.run(call)

    calls = [rows(0), rows(1), rows(2, 3, 4)]
    for call, future in zip(calls, meet(pool.get(tagger), engine, calls, use), strict=True):
        np.testing.assert_array_equal(future.result()["y"], 2 * call["x"])
    assert sorted(told) == [(1, 3.5), (1, 11.0), (3, 10.5)]


def test_on_a_cpu_calls_run_concurrently() -> None:
    pool, component = EnginePool(), zoo.bundle(zoo.TAGGER).components["tagger"]
    assert not isinstance(pool.get(component), DynamicBatcher)
    assert isinstance(EnginePool(Device(lambda inputs: None)).get(component), DynamicBatcher)
