"""A fake clock: the time of a sequence of uses, with one processor, one transfer channel and one memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .residency import EngineRef, Load, Residency, Use


@dataclass(frozen=True, slots=True)
class Trace:
    """Seconds by the fake clock, and peak memory."""

    makespan_s: float
    compute_s: float
    transfer_s: float
    """Seconds of all loads, repeated ones included."""
    peak_bytes: int


def simulate(uses: Sequence[Use], memory: Residency, load_s: Callable[[EngineRef], float], *, prefetch: bool = True) -> Trace:
    """Simulate `uses` in order. With `prefetch` the next graph that `memory` expects is loaded while others compute.

    ValueError if a graph alone is larger than the memory.
    """
    now = transfer_s = 0.0
    done, computed_at, loaded_at = 0, -1.0, -1.0  # negative: idle
    loading: EngineRef | None = None
    while done < len(uses):
        use = uses[done]
        if computed_at < 0 and use.graph in memory:
            memory.hold(use.graph)
            computed_at = now + use.seconds
        if loading is None and (load := _load(use, memory, idle=computed_at < 0, prefetch=prefetch)):
            memory.begin(load)
            loading, loaded_at = load.graph, now + load_s(load.graph)
            transfer_s += load_s(load.graph)
        now = min(t for t in (computed_at, loaded_at) if t >= 0)
        if loaded_at == now and loading:
            memory.loaded(loading)
            loading, loaded_at = None, -1.0
        if computed_at == now:
            memory.drop(use.graph)
            done, computed_at = done + 1, -1.0
    return Trace(now, sum(use.seconds for use in uses), transfer_s, memory.peak_bytes)


def _load(use: Use, memory: Residency, *, idle: bool, prefetch: bool) -> Load | None:
    if idle and use.graph not in memory:
        return memory.room(use.graph)
    return memory.next_load() if prefetch else None
