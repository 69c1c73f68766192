"""Milliseconds of a stage that may be entered more than once."""

from __future__ import annotations

import time


class StageTimer:
    """Counts while its block runs."""

    def __init__(self) -> None:
        self.ms = 0.0

    def __enter__(self) -> StageTimer:
        self._start = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.ms += (time.perf_counter() - self._start) * 1000
