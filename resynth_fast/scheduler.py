"""The request scheduler: which pictures are made together. Pure: no engine, no clock, no state."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from .types import Request

# Where batching saturates on a CPU for the zoo's denoisers; a GPU wants more.
MAX_ROWS = 8


@dataclass(frozen=True, slots=True)
class Wave:
    """One batch to one candidate."""

    candidate: str
    requests: tuple[Request, ...]


def plan(requests: Iterable[Request], max_rows: int = MAX_ROWS) -> list[Wave]:
    """Waves of at most `max_rows`, a candidate's one after another so that its engines are loaded once.

    Equal requests are made once. Noise belongs to the request, so what a wave holds changes the speed, never a picture.
    """
    by_candidate: dict[str, list[Request]] = {}
    for request in dict.fromkeys(requests):
        by_candidate.setdefault(request.candidate, []).append(request)
    return [
        Wave(candidate, tuple(rows[i : i + max_rows])) for candidate, rows in by_candidate.items() for i in range(0, len(rows), max_rows)
    ]
