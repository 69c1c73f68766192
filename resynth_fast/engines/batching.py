"""Calls of one engine that meet are run as one: rows of walks that are at different steps, in one pass.

Nobody waits for company: a call that finds the engine free is run as it is. Those that come meanwhile queue, and the first of
them runs as many as fit. There is no thread here: who waits is woken with its rows or, as the first in the queue, to take its turn.
So n walks at once take about as many calls as two, and two take theirs in turn.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from queue import SimpleQueue
from typing import Any

import numpy as np

from ..backends import Arrays, Engine
from ..devices.base import CPU
from ..errors import DeviceError

MOST_ROWS = 32
"""Of a call that is made of several."""


def dynamic_batching(engine: Engine, holders: Callable[[], int]) -> Engine:
    """`engine`, its calls merged if it runs on a device, which takes them one by one; `holders` says how many threads hold it.

    A processor gains nothing: `benchmarks/bench_scheduler.py`.
    """
    return engine if engine.device is CPU else DynamicBatcher(engine, holders)


def waiting_s(engine: Engine) -> float:
    """Seconds that the calling thread has so far spent in `engine` on waiting and on rows of other threads."""
    return engine.clock.waiting_s if isinstance(engine, DynamicBatcher) else 0.0


class DynamicBatcher:
    """An engine that one thread runs at a time, for others too: calls of the same inputs, but for the number of rows.

    Where it has several holders a turn lasts until the device is done, not only told, so that the others come together meanwhile;
    one alone is let run ahead of the device.
    What fails together is run again call by call, so that an error, of memory too, reaches only who would have had it alone.
    """

    def __init__(self, engine: Engine, holders: Callable[[], int], most_rows: int = MOST_ROWS) -> None:
        self.fallback, self.device, self.clock = engine.fallback, engine.device, _Clock()
        self._engine, self._holders, self._most = engine, holders, most_rows
        self._lock = threading.Lock()
        self._queue: list[_Call] = []
        """In the order they came; the first has the turn. Changed under the lock, which nobody keeps while the engine runs."""

    def run(self, inputs: Arrays) -> dict[str, Any]:
        """See `Engine.run`."""
        call = _Call(inputs)
        try:
            with self._lock:
                self._queue.append(call)
                first = self._queue[0] is call
            if not first:
                start = time.perf_counter()
                call.woken.get()
                self.clock.waiting_s += time.perf_counter() - start - call.share_s
            if call.outputs is None and len(self._queue) > 1:
                self._merge(call)
            return self._run(inputs) if call.outputs is None else call.outputs
        finally:
            try:
                self._leave(call)
            except BaseException:  # an interrupt, which must not leave the others waiting
                self._leave(call)
                raise

    def _merge(self, call: _Call) -> None:
        """Answer `call` and those of the queue that fit, if there are any; these stay there until its thread leaves."""
        calls = [call]
        try:
            calls += self._fitting(call)
            if len(calls) > 1:
                self.clock.waiting_s += self._answer(calls) - call.share_s
        except Exception as error:
            for each in calls:
                each.unbatchable = True
            if isinstance(error, DeviceError):
                self._most = sum(each.rows for each in calls) - 1

    def _fitting(self, call: _Call) -> list[_Call]:
        """The longest waiting of the same kind, so many that the rows are doubled, once or again: a device is set up for each number of rows."""
        with self._lock:
            waiting = [
                each for each in self._queue if each is not call and each.outputs is None and not (each.unbatchable or call.unbatchable)
            ]
        found, rows, whole = list[_Call](), call.rows, 0
        for each in waiting:
            if rows + each.rows <= self._most and each.kind == call.kind:
                found.append(each)
                rows += each.rows
                if rows in (call.rows << times for times in range(1, rows.bit_length())):
                    whole = len(found)
        return found[:whole]

    def _answer(self, calls: Sequence[_Call]) -> float:
        """Seconds that one run for all of them took."""
        start = time.perf_counter()
        outputs = self._run({name: self._concatenate([each.inputs[name] for each in calls]) for name in calls[0].inputs})
        seconds, rows = time.perf_counter() - start, sum(each.rows for each in calls)
        if any(len(values) != rows for values in outputs.values()):
            raise ValueError("an output has other rows than the inputs")
        done = 0
        for each in calls:
            each.share_s = seconds * each.rows / rows
            each.outputs = {name: values[done : done + each.rows] for name, values in outputs.items()}
            done += each.rows
        return seconds

    def _run(self, inputs: Arrays) -> dict[str, Any]:
        outputs = self._engine.run(inputs)
        if self._holders() > 1:
            self.device.synchronize()
        return outputs

    def _concatenate(self, parts: Sequence[Any]) -> Any:
        return (CPU if isinstance(parts[0], np.ndarray) else self.device).concatenate(parts)

    def _leave(self, call: _Call) -> None:
        """Wake who is answered, and give the turn to the first who is not. Done by half and then again, it is as good as done once."""
        with self._lock:
            if self._queue and self._queue[0] is call:
                left = []
                for each in self._queue[1:]:
                    if each.outputs is None:
                        left.append(each)
                    else:
                        each.woken.put(None)
                if left:
                    left[0].woken.put(None)
                self._queue = left
            elif call in self._queue:  # interrupted while it waited
                self._queue.remove(call)


class _Call:
    """What one thread asks for."""

    def __init__(self, inputs: Arrays) -> None:
        self.inputs = inputs
        self.outputs: dict[str, Any] | None = None
        self.share_s = 0.0
        """Of the run that it was answered by."""
        self.unbatchable = False
        """Not to be merged: that has failed."""
        self.woken: SimpleQueue[None] = SimpleQueue()

    @cached_property
    def rows(self) -> int:
        return len(next(iter(self.inputs.values())))

    @cached_property
    def kind(self) -> tuple[Any, ...]:
        """Equal for calls that can be merged: names, types and shapes but for the rows, which must be as many in all inputs."""
        if any(len(values) != self.rows for values in self.inputs.values()):
            return (self,)
        return tuple((name, type(values), values.dtype, values.shape[1:]) for name, values in sorted(self.inputs.items()))


class _Clock(threading.local):
    """Of each thread."""

    waiting_s = 0.0
