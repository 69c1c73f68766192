"""The two clocks of a call: a timer, which only observes, and a deadline, by which it is decided what still begins."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

STAGES = ("read", "caption", "generate", "features", "score")


class StageTimer:
    """Elapsed milliseconds per stage of one call, in `ms`. It observes: no decision depends on its values."""

    def __init__(self) -> None:
        self.ms = dict.fromkeys(STAGES, 0.0)
        self._lock = threading.Lock()

    @contextmanager
    def stage(self, name: str, *, inside: str | None = None, threads: int = 1) -> Iterator[None]:
        """Add the time of the block to stage `name`, which may be entered more than once.

        `inside`: the stage that is timed around the block; the block's time is subtracted from it. `threads`: how many
        threads run such blocks side by side; the block counts by that share.
        """
        start = time.perf_counter()
        try:
            yield
        finally:
            ms = 1000 * (time.perf_counter() - start) / threads
            with self._lock:
                self.ms[name] += ms
                if inside:
                    self.ms[inside] -= ms

    def per_probe(self, probes: int) -> dict[str, float]:
        """Milliseconds per stage and their "total", divided by the number of `probes`."""
        ms = {stage: value / probes for stage, value in self.ms.items()}
        return ms | {"total": sum(ms.values())}


class Deadline:
    """The moment by which work must end, on the monotonic clock. After the first refusal, nothing more is allowed."""

    def __init__(self, seconds: float = math.inf) -> None:
        """`seconds` from now; infinity means no limit."""
        self.finite = math.isfinite(seconds)
        self._end_s = time.monotonic() + seconds
        self._missed = False

    @classmethod
    def after(cls, seconds_per_probe: float | None, count: int, spent_s: float = 0.0) -> Deadline:
        """The deadline of `count` probes that have already taken `spent_s` seconds; no limit if `seconds_per_probe` is None."""
        return cls() if seconds_per_probe is None else cls(seconds_per_probe * count - spent_s)

    def allows(self, seconds: float) -> bool:
        """Whether work that begins now and takes `seconds` ends in time."""
        self._missed = self._missed or time.monotonic() + seconds > self._end_s
        return not self._missed
