"""How near engines come to what the processor can do: arithmetic of a component beside the fastest matrix product."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import numpy as np

from ..candidates.engine import EngineCandidate
from ..engines.pool import EnginePool, engine_ref

SIDES, ROUNDS = (512, 1024), 8
PARTS = ("denoiser", "decoder")
"""What is timed as it runs; texts are encoded once a caption."""


def peak_flops() -> float:
    """FLOP/s of the best of some square float32 products, by NumPy's BLAS with as many threads as it was given."""
    best = 0.0
    for side in SIDES:
        a, b = np.random.default_rng(0).standard_normal((2, side, side), dtype=np.float32)
        for _ in range(ROUNDS):  # the first ones warm up
            start = time.perf_counter()
            a @ b
            best = max(best, 2 * side**3 / (time.perf_counter() - start))
    return best


def shares(candidates: Iterable[object], pool: EnginePool) -> dict[str, Any]:
    """Achieved FLOP/s of each component that has run, from its bundle's count and the pool's clock, and its share of the peak."""
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
        if isinstance(candidate, EngineCandidate)
        for part in PARTS
        if (component := candidate.bundle.components[part]).flops
        and (graph := engine_ref(component)) in pool.costs
        and (seconds := pool.costs.of(graph).row_s)
    ]
    return {"peak_flops_per_s": peak, "components": rows}
