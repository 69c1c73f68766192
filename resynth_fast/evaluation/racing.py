"""Racing compared with the exhaustive run. All references are generated first; the race uses the first few of each candidate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..attributor import Attributor
from ..candidates import ScheduledCandidate
from ..scoring.decision import Decision
from ..types import Doubles, Integers
from . import metrics

Counts = Integers
References = Sequence[Sequence[Doubles]]
"""For each probe, C arrays (K, d)."""


def race(attributor: Attributor, captions: Sequence[str], points: Sequence[Doubles], references: References) -> Counts:
    """Number of references (n, C) that the race of each probe (d,) uses.

    They are the pictures that `resynth attribute --race` generates.
    """
    names, executor = list(attributor.candidates), attributor.references.executor
    by_request = {
        request: point
        for caption, each in zip(captions, references, strict=True)
        for name, rows in zip(names, each, strict=True)
        for request, point in zip(executor.references(name, caption), rows, strict=True)
    }
    priors = [attributor.space.prior(names)] * len(points)
    standings = attributor.references.race()(
        captions, points, priors, lambda requests: {request: by_request[request] for request in requests}
    )
    return np.stack([standing.counts for standing in standings])


def reference_rows(attributor: Attributor) -> Integers:
    """(C, K) denoiser rows of each reference of each candidate."""
    executor, steps = attributor.references.executor, attributor.options.steps
    works = {name: c.work(steps) for name, c in attributor.candidates.items() if isinstance(c, ScheduledCandidate)}
    return np.array([[work.calls * work.at(multiple).rows for multiple in executor.guidance(name)] for name, work in works.items()])


def judged(
    attributor: Attributor,
    captions: Sequence[str],
    points: Sequence[Doubles],
    copies: Sequence[Sequence[Doubles]],
    references: References,
    counts: Counts,
) -> list[Decision]:
    """Decisions on the first `counts` (n, C) references."""
    executor = attributor.references.executor
    raced = [[rows[:n] for rows, n in zip(each, row, strict=True)] for each, row in zip(references, counts.tolist(), strict=True)]
    guidance = [[executor.guidance(name)[:n] for name, n in zip(attributor.candidates, row, strict=True)] for row in counts.tolist()]
    return attributor.judge(captions, points, copies, raced, guidance=guidance)


def agreement(
    attributor: Attributor,
    raced: Sequence[Decision],
    exhaustive: Sequence[Decision],
    counts: Counts,
    truth: Integers,
    prompt: Integers,
) -> dict[str, Any]:
    """Pictures saved by racing, and the verdicts that it changes.

    `truth` (n,) is -1 for probes whose generator is not a candidate; `prompt` (n,) is the unit of the bootstrap. The agreement
    is that of the first candidates, among probes that the exhaustive run attributes; None if it attributes none.
    """
    rows = reference_rows(attributor)
    raced_rows = sum(np.cumsum([0, *of_one])[of_counts] for of_one, of_counts in zip(rows, counts.T, strict=True))
    first, expected = (np.array([d.order[0] for d in decisions]) for decisions in (raced, exhaustive))
    attributed, known = np.array([d.status == "attributed" for d in exhaustive]), truth >= 0
    same = first == expected
    hits, all_hits = ((labels == truth)[known] for labels in (first, expected))
    return {
        "pictures": float(counts.sum(1).mean()),
        "of_pictures": rows.size,
        "denoiser_rows": float(np.mean(raced_rows)),
        "of_denoiser_rows": int(rows.sum()),
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
