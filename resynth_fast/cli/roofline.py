"""Achieved FLOP/s of the engines beside the fastest matrix product on the same processor."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import numpy as np

from ..candidates import ScheduledCandidate
from ..engines.pool import EnginePool, engine_ref

SIDES, ROUNDS = (512, 1024), 8
PARTS = ("denoiser", "decoder")
"""Components whose time is reported; text encoders are left out, since they run once per caption."""


def peak_flops() -> float:
    """FLOP/s of the fastest of several square float32 products, by NumPy's BLAS with its own number of threads."""
    best = 0.0
    for side in SIDES:
        a, b = np.random.default_rng(0).standard_normal((2, side, side), dtype=np.float32)
        for _ in range(ROUNDS):  # the first rounds warm up
            start = time.perf_counter()
            a @ b
            best = max(best, 2 * side**3 / (time.perf_counter() - start))
    return best


def shares(candidates: Iterable[object], pool: EnginePool) -> dict[str, Any]:
    """FLOP/s of each component that has run, and its share of the peak: the bundle counts the operations, the pool the seconds."""
    peak = peak_flops()
    rows = [
        {
            "candidate": candidate.name,
            "component": part,
            "flops": component.flops,
            "row_ms": 1000 * seconds,
            "flops_per_s": component.flops / seconds,
            "share_of_peak": component.flops / seconds / peak,
        }
        for candidate in candidates
        if isinstance(candidate, ScheduledCandidate)
        for part in PARTS
        if (component := candidate.bundle.components[part]).flops
        and (graph := engine_ref(component)) in pool.costs
        and (seconds := pool.costs.of(graph).row_s)
    ]
    return {"peak_flops_per_s": peak, "components": rows}
