"""Check that the bits of a row do not depend on the other rows of its batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy.typing as npt
from timing import Row, measured

ROWS, BATCHES = 16, (2, 3, 8, 16)


def in_batches(bench: str, compute: Callable[[Sequence[int]], npt.NDArray[Any]], device: str | None = None) -> Row:
    """Count the rows whose bits are the same in a batch and alone.

    `compute` takes indices among ROWS inputs and returns their rows (n, …).
    """
    alone = [compute([i])[0].tobytes() for i in range(ROWS)]
    same = [row.tobytes() == alone[i] for count in BATCHES for i, row in enumerate(compute(range(count)))]
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
