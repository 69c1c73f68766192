"""Racing beside the exhaustive run: the race is run on references that were all drawn, of which it takes the first so many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..arrays import Doubles, Integers
from ..attributor import Attributor
from ..candidates import ScheduledCandidate
from ..scoring.decision import Decision
from ..types import Request
from . import metrics

Counts = npt.NDArray[np.int64]
References = Sequence[Sequence[Doubles]]
"""For each probe, C arrays (K, d)."""


def race(attributor: Attributor, captions: Sequence[str], points: Sequence[Doubles], references: References) -> Counts:
    """How many references (n, C) the race of each probe (d,) takes; the same pictures that `resynth attribute --race` draws."""
    names, seeds = list(attributor.candidates), attributor.options.seeds
    found = {
        Request(name, caption, seed): point
        for caption, each in zip(captions, references, strict=True)
        for name, rows in zip(names, each, strict=True)
        for seed, point in zip(seeds, rows, strict=True)
    }
    known = [attributor.space.prior(names)] * len(points)
    standings = attributor.references.race()(captions, points, known, lambda wanted: {request: found[request] for request in wanted})
    return np.stack([standing.counts for standing in standings])


def judged(
    attributor: Attributor,
    captions: Sequence[str],
    points: Sequence[Doubles],
    copies: Sequence[Sequence[Doubles]],
    references: References,
    counts: Counts,
) -> list[Decision]:
    """Decisions on the first `counts` (n, C) references."""
    taken = [[rows[:n] for rows, n in zip(each, row, strict=True)] for each, row in zip(references, counts.tolist(), strict=True)]
    return attributor.judge(captions, points, copies, taken)


def agreement(
    attributor: Attributor,
    raced: Sequence[Decision],
    exhaustive: Sequence[Decision],
    counts: Counts,
    truth: Integers,
    prompt: Integers,
) -> dict[str, Any]:
    """What racing saves and what it changes; `truth` (n,) is -1 for generators that are no candidates, `prompt` (n,) groups intervals.

    The agreement is of first candidates among probes that the exhaustive run attributes; None where it attributes none.
    """
    works = [c.work(attributor.options.steps) for c in attributor.candidates.values() if isinstance(c, ScheduledCandidate)]
    rows = np.array([work.calls * work.rows for work in works])
    first, expected = (np.array([d.order[0] for d in decisions]) for decisions in (raced, exhaustive))
    attributed, known = np.array([d.status == "attributed" for d in exhaustive]), truth >= 0
    same = first == expected
    hits, all_hits = ((labels == truth)[known] for labels in (first, expected))
    return {
        "pictures": float(counts.sum(1).mean()),
        "of_pictures": len(rows) * attributor.options.references,
        "denoiser_rows": float((counts * rows).sum(1).mean()),
        "of_denoiser_rows": int(rows.sum() * attributor.options.references),
        "attributed": int(attributed.sum()),
        "differ": int((~same & attributed).sum()),
        "agreement": float(same[attributed].mean()) if attributed.any() else None,
        "agreement_ci95": metrics.interval(same[attributed].astype(float), prompt[attributed]) if attributed.any() else None,
        "agreement_all": float(same.mean()),
        "accuracy": float(hits.mean()),
        "of_accuracy": float(all_hits.mean()),
        "difference": float(hits.mean() - all_hits.mean()),
        "difference_ci95": metrics.interval(hits.astype(float) - all_hits, prompt[known]),
    }
