"""Compare the results of contestants, then time them in turn: rows of ours against each peer and each absolute goal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from timing import ALLOWANCE, Row, interleave, measured

from gpu.setting import Setting

Pixels = npt.NDArray[np.uint8]


def timed(
    s: Setting,
    bench: str,
    case: str,
    calls: Mapping[str, Callable[[], object]],
    ours: Sequence[str],
    goals: Mapping[str, float] | None = None,
    *,
    limit_us: float | None = None,
    allowance_us: float | None = None,
    per: int = 1,
    rounds: int = 0,
) -> Iterator[Row]:
    """A row for each of our backends and each peer. The goals apply to the first of ours; tiny pipelines have none.

    `allowance_us` is an absolute goal. A call's time is divided by `per`.
    """
    samples = interleave(calls, s.finish, rounds=rounds or s.rounds)
    median, p90 = ({key: float(np.percentile(times, q)) / per for key, times in samples.items()} for q in (50, 90))
    goals = dict(goals or {})
    if allowance_us is not None and not s.tiny:
        median[ALLOWANCE], goals[ALLOWANCE] = allowance_us, 1.0
    for backend in ours:
        for peer in (name for name in median if name not in ours):
            yield measured(
                bench,
                f"{case}, {backend}",
                ours=median[backend],
                ours_p90=p90[backend],
                peer=median[peer],
                peer_p90=p90.get(peer),
                peer_name=peer,
                limit_pct=None if limit_us is None else 100 * limit_us / median[backend],
                device=s.label,
                goal=goals.get(peer) if backend == ours[0] and not s.tiny else None,
            )


def agree(s: Setting, what: str, calls: Mapping[str, Callable[[], list[Pixels]]]) -> None:
    """SystemExit unless the pictures of all contestants equal those of the first up to rounding."""
    results = {key: np.stack(call()).astype(np.float64) / 255 for key, call in calls.items()}
    first = next(iter(results))
    for key, pictures in results.items():
        error = float(np.abs(pictures - results[first]).mean())
        if not error <= s.tolerance:
            raise SystemExit(f"{what}: pictures by {key} differ from those by {first} by {error:.1e}, allowed is {s.tolerance:.0e}")


def near(s: Setting, what: str, calls: Mapping[str, Callable[[], Any]]) -> None:
    """SystemExit unless the arrays of all contestants equal those of the first up to rounding."""
    results = {key: torch.as_tensor(call()).float().cpu() for key, call in calls.items()}
    first = next(iter(results))
    for key, values in results.items():
        error = float((values - results[first]).abs().max() / results[first].abs().max())
        if not error <= s.tolerance:
            raise SystemExit(f"{what} by {key} differs from {first} by {error:.1e}, allowed is {s.tolerance:.0e}")
