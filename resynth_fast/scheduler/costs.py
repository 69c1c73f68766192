"""The cost table: seconds per row and seconds to load of each graph, measured, or else guessed from its size."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from .. import files
from .residency import EngineRef

GUESSED_ROW_S = 8e-10
"""Seconds per row and byte in memory, for the zoo's denoisers on one core."""
GUESSED_LOAD_S = 2e-8
"""Seconds per byte, for sessions of ONNX Runtime, graph optimisation included."""
SHARE = 0.2
"""Weight of a new measurement in the running mean."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of one graph, or of one extractor, on one backend and device."""

    row_s: float
    load_s: float


class CostTable:
    """Costs by the hash of a graph, or of an extractor. Measurements change the order of work and forecasts, never a picture."""

    def __init__(self, measured: Mapping[str, Cost] | None = None) -> None:
        self._measured = dict(measured or {})

    def of(self, graph: EngineRef) -> Cost:
        return self._measured.get(graph.sha256) or Cost(GUESSED_ROW_S * graph.size_bytes, GUESSED_LOAD_S * graph.size_bytes)

    def __contains__(self, graph: EngineRef) -> bool:
        """Whether `graph` was measured."""
        return graph.sha256 in self._measured

    def ran(self, graph: EngineRef, rows: int, seconds: float) -> None:
        """Enter a call with `rows` that took `seconds`."""
        old = self.of(graph)
        row_s = seconds / rows
        self._measured[graph.sha256] = Cost(_blend(old.row_s, row_s, graph.sha256 in self._measured), old.load_s)

    def loaded(self, graph: EngineRef, seconds: float) -> None:
        """Enter a load that took `seconds`."""
        old = self.of(graph)
        self._measured[graph.sha256] = Cost(old.row_s, _blend(old.load_s, seconds, graph.sha256 in self._measured))

    def write(self, path: Path, device: str) -> None:
        """Store the table. `device`: the backend and machine that it was measured on."""
        entry = {"device": device, "costs": {sha: asdict(cost) for sha, cost in sorted(self._measured.items())}}
        with files.write_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            files.write(path, json.dumps(entry, indent=1).encode())

    @classmethod
    def read(cls, path: Path, device: str) -> CostTable:
        """The stored table; empty if there is none for `device`. A broken file is renamed and ignored, since costs are only forecasts."""
        try:
            entry = json.loads(path.read_text())
            if entry["device"] != device:
                return cls()
            costs = {sha: Cost(float(c["row_s"]), float(c["load_s"])) for sha, c in entry["costs"].items()}
            if not all(math.isfinite(v) and v >= 0 for c in costs.values() for v in (c.row_s, c.load_s)):
                raise ValueError("a cost is negative or not finite")
        except FileNotFoundError:
            return cls()
        except (OSError, KeyError, TypeError, ValueError, AttributeError):
            with suppress(OSError):
                os.replace(path, path.with_suffix(".bad"))
            return cls()
        return cls(costs)


def stored() -> Path:
    """The file in which `resynth bench` stores its measurements."""
    return files.user_cache() / "costs.json"


def _blend(old: float, new: float, measured: bool) -> float:
    return (1 - SHARE) * old + SHARE * new if measured else new
