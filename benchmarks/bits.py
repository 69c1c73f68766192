"""Whether a row's bits depend on the rows beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy.typing as npt
from timing import Row, measured

ROWS, BATCHES = 16, (2, 3, 8, 16)


def in_batches(bench: str, made: Callable[[Sequence[int]], npt.NDArray[Any]], device: str | None = None) -> Row:
    """Rows (n, …) that `made` makes of the first so many of sixteen, beside each of them made alone."""
    alone = [made([i])[0].tobytes() for i in range(ROWS)]
    same = [row.tobytes() == alone[i] for count in BATCHES for i, row in enumerate(made(range(count)))]
    return measured(
        bench,
        "a row's bits, alone and in batches of 2 to 16",
        ours=sum(same),
        peer=len(same),
        peer_name="all",
        ratio=sum(same) / len(same),
        goal=1.0,
        unit="rows",
        device=device,
    )
