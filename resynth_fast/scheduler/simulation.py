"""A fake clock: how long a sequence of uses takes, with one processor, one transfer channel and one memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .residency import EngineRef, Load, Residency, Use


@dataclass(frozen=True, slots=True)
class Trace:
    """Seconds, of the fake clock."""

    makespan_s: float
    compute_s: float
    transfer_s: float
    """Of all loads, repeated ones included."""
    peak_bytes: int


def simulate(uses: Sequence[Use], memory: Residency, load_s: Callable[[EngineRef], float], *, prefetch: bool = True) -> Trace:
    """Carry out `uses` in order. With `prefetch` the next graph is loaded while others compute, as `memory` was told to expect.

    ValueError if a graph alone is larger than the memory.
    """
    now = transfer_s = 0.0
    done, free_at, here_at = 0, -1.0, -1.0  # negative: idle
    coming: EngineRef | None = None
    while done < len(uses):
        use = uses[done]
        if free_at < 0 and use.graph in memory:
            memory.hold(use.graph)
            free_at = now + use.seconds
        if coming is None and (load := _load(use, memory, idle=free_at < 0, prefetch=prefetch)):
            memory.begin(load)
            coming, here_at = load.graph, now + load_s(load.graph)
            transfer_s += load_s(load.graph)
        now = min(t for t in (free_at, here_at) if t >= 0)
        if here_at == now and coming:
            memory.loaded(coming)
            coming, here_at = None, -1.0
        if free_at == now:
            memory.drop(use.graph)
            done, free_at = done + 1, -1.0
    return Trace(now, sum(use.seconds for use in uses), transfer_s, memory.peak_bytes)


def _load(use: Use, memory: Residency, *, idle: bool, prefetch: bool) -> Load | None:
    if idle and use.graph not in memory:
        return memory.room(use.graph)
    return memory.next_load() if prefetch else None
