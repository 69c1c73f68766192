"""Work side by side: as many threads as there are lanes, each with one item at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Lanes:
    """Threads for small networks: each computes one with a core of its own, which loses nothing to waiting for the others."""

    def __init__(self, count: int) -> None:
        self.count = count

    def map(self, work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """`work` of each item, in their order. An error ends it: what has not begun does not begin, and the error of the first is raised."""
        with self.running(work, items) as results:
            return results()

    @contextmanager
    def running(self, work: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Callable[[], list[Result]]]:
        """`map` that runs beside the block, which asks for the results; nothing of it runs when the block is left."""
        waiting = list(items)
        if self.count == 1 or not waiting:
            yield lambda: [work(item) for item in waiting]
            return
        # Threads of the call: a few µs each, nothing to close, and a process that forks later has lost none.
        threads = ThreadPoolExecutor(min(self.count, len(waiting)), thread_name_prefix="resynth-lane")
        try:
            futures = [threads.submit(work, item) for item in waiting]
            yield lambda: [future.result() for future in futures]
        finally:
            threads.shutdown(cancel_futures=True)
