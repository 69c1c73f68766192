"""The request scheduler: which pictures are generated together, in which order, and which weights are in memory meanwhile.

Pure: no engine, no clock, no thread. `resynthesis.executor` carries a plan out, `engines.pool` keeps to its residency.
"""

from __future__ import annotations

from .costs import Cost, CostTable
from .planning import MAX_ROWS, BatchKey, Plan, TextWave, Wave, Work, plan
from .residency import EngineRef, Residency, Use
from .simulation import Trace, simulate

__all__ = [
    "MAX_ROWS",
    "BatchKey",
    "Cost",
    "CostTable",
    "EngineRef",
    "Plan",
    "Residency",
    "TextWave",
    "Trace",
    "Use",
    "Wave",
    "Work",
    "plan",
    "simulate",
]
