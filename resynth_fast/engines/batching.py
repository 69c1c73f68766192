"""Dynamic batching: concurrent calls of one engine run as one batch, even if their walks are at different steps.

A call on an idle engine runs at once. Calls that arrive while it runs are queued and executed as one batch by the first
of them, as many as fit. There is no batching thread: a queued call is woken with its outputs or, as the first in the
queue, to run its batch. So n concurrent walks take about as many engine calls as two, and two walks alternate.
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
"""Maximum number of rows of a batch."""


def dynamic_batching(engine: Engine, holders: Callable[[], int]) -> Engine:
    """`engine`, with its calls batched if it runs on a device; `holders` gives the number of threads that hold it.

    A device runs calls one by one. A CPU gains nothing from batching: `benchmarks/bench_scheduler.py`.
    """
    return engine if engine.device is CPU else DynamicBatcher(engine, holders)


def waiting_s(engine: Engine) -> float:
    """Seconds that the calling thread has spent in `engine` so far on waiting and on rows of other threads."""
    return engine.clock.waiting_s if isinstance(engine, DynamicBatcher) else 0.0


class DynamicBatcher:
    """An engine that runs one call at a time and batches queued calls that differ in nothing but their number of rows.

    With several holders a call lasts until the device has finished, not only been told, so that the calls of the others
    queue up meanwhile. With one holder, the thread may run ahead of the device.
    If a batch fails, its calls are retried one by one, so an error (including out-of-memory) reaches only the call that causes it.
    """

    def __init__(self, engine: Engine, holders: Callable[[], int], most_rows: int = MOST_ROWS) -> None:
        self.fallback, self.device, self.clock = engine.fallback, engine.device, _Clock()
        self._engine, self._holders, self._most_rows = engine, holders, most_rows
        self._lock = threading.Lock()
        self._queue: list[_Call] = []
        """Calls in the order of their arrival; the first one runs. It changes under the lock, which is free while the engine runs."""

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
                self._run_batch(call)
            return self._run(inputs) if call.outputs is None else call.outputs
        finally:
            try:
                self._leave(call)
            except BaseException:  # an interrupt, which must not leave the others waiting
                self._leave(call)
                raise

    def _run_batch(self, call: _Call) -> None:
        """Run `call` with the queued calls that fit, if there are any. They stay in the queue until the thread of `call` leaves."""
        batch = [call]
        try:
            batch += self._fitting(call)
            if len(batch) > 1:
                self.clock.waiting_s += self._execute(batch) - call.share_s
        except Exception as error:
            for member in batch:
                member.unbatchable = True
            if isinstance(error, DeviceError):
                self._most_rows = sum(member.rows for member in batch) - 1

    def _fitting(self, call: _Call) -> list[_Call]:
        """The longest waiting calls of the same kind whose rows double those of `call`, once or repeatedly.

        A device is set up anew for each number of rows, so only these few numbers occur.
        """
        with self._lock:
            waiting = [
                other
                for other in self._queue
                if other is not call and other.outputs is None and not (other.unbatchable or call.unbatchable)
            ]
        fitting, rows, doubled = list[_Call](), call.rows, 0
        for other in waiting:
            if rows + other.rows <= self._most_rows and other.kind == call.kind:
                fitting.append(other)
                rows += other.rows
                if rows in (call.rows << times for times in range(1, rows.bit_length())):
                    doubled = len(fitting)
        return fitting[:doubled]

    def _execute(self, batch: Sequence[_Call]) -> float:
        """Run the engine once for all calls of `batch` and store their outputs; the seconds of the run."""
        start = time.perf_counter()
        outputs = self._run({name: self._concatenate([call.inputs[name] for call in batch]) for name in batch[0].inputs})
        seconds, rows = time.perf_counter() - start, sum(call.rows for call in batch)
        if any(len(values) != rows for values in outputs.values()):
            raise ValueError("an output has another number of rows than the inputs")
        done = 0
        for call in batch:
            call.share_s = seconds * call.rows / rows
            call.outputs = {name: values[done : done + call.rows] for name, values in outputs.items()}
            done += call.rows
        return seconds

    def _run(self, inputs: Arrays) -> dict[str, Any]:
        outputs = self._engine.run(inputs)
        if self._holders() > 1:
            self.device.synchronize()
        return outputs

    def _concatenate(self, parts: Sequence[Any]) -> Any:
        return (CPU if isinstance(parts[0], np.ndarray) else self.device).concatenate(parts)

    def _leave(self, call: _Call) -> None:
        """Wake the calls that have outputs, and the first one without to run next. A second call repairs a first that was interrupted."""
        with self._lock:
            if self._queue and self._queue[0] is call:
                remaining = []
                for other in self._queue[1:]:
                    if other.outputs is None:
                        remaining.append(other)
                    else:
                        other.woken.put(None)
                if remaining:
                    remaining[0].woken.put(None)
                self._queue = remaining
            elif call in self._queue:  # interrupted while it waited
                self._queue.remove(call)


class _Call:
    """One thread's call of the engine."""

    def __init__(self, inputs: Arrays) -> None:
        self.inputs = inputs
        self.outputs: dict[str, Any] | None = None
        self.share_s = 0.0
        """Its share, by rows, of the seconds of the batch that gave its outputs."""
        self.unbatchable = False
        """Whether a batch with it has failed, so that it runs alone."""
        self.woken: SimpleQueue[None] = SimpleQueue()

    @cached_property
    def rows(self) -> int:
        return len(next(iter(self.inputs.values())))

    @cached_property
    def kind(self) -> tuple[Any, ...]:
        """Equal for calls that can share a batch: names, types and shapes but for the rows, of which all inputs must have equally many."""
        if any(len(values) != self.rows for values in self.inputs.values()):
            return (self,)
        return tuple((name, type(values), values.dtype, values.shape[1:]) for name, values in sorted(self.inputs.items()))


class _Clock(threading.local):
    """Seconds of each thread."""

    waiting_s = 0.0
