"""Lanes: threads that work side by side, each with one item at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Lanes:
    """Threads for small networks: each network runs on one core and loses nothing to synchronisation with the others."""

    def __init__(self, count: int) -> None:
        self.count = count

    def map(self, work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """`work` of every item, in their order. After an error no further item begins, and the first item's error is raised."""
        with self.running(work, items) as results:
            return results()

    @contextmanager
    def running(self, work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Callable[[], list[Result]]]:
        """`map` in the background of the block, which calls the yielded function for the results; nothing runs after the block."""
        waiting = list(items)
        if self.count == 1 or not waiting:
            yield lambda: [work(item) for item in waiting]
            return
        # Threads per call: a few µs each, nothing to close, and a process that forks later has lost none.
        threads = ThreadPoolExecutor(min(self.count, len(waiting)), thread_name_prefix="resynth-lane")
        try:
            futures = [threads.submit(work, item) for item in waiting]
            yield lambda: [future.result() for future in futures]
        finally:
            threads.shutdown(cancel_futures=True)
