"""The score kernel beside the NumPy arithmetic that it replaced: verdicts of one probe and of a thousand."""

# First, because it fixes the number of threads, which NumPy reads when it is imported.
from timing import Row, compare, processor, run

# isort: split
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from resynth_fast.kernels import isa
from resynth_fast.kernels.similarity import GalleryPrior, Scores, score
from resynth_fast.scoring.prior import ADVANTAGE, Prior
from resynth_fast.types import Doubles, Integers

CANDIDATES, REFERENCES, DIMENSION = 4, 4, 3840
WITHIN_TRACE = 0.7


def main() -> None:
    """Time score and consistency, with a gallery and without, of one probe and of a thousand in one call."""
    run(
        cpu=lambda: [
            *on_cpu(1, best=4.0),
            *on_cpu(1000, best=8.0),
            *on_cpu(1, points=4),
            *on_cpu(1, gallery=True),
            *on_cpu(1000, gallery=True),
        ]
    )


@dataclass(frozen=True)
class Problem:
    """P probes of n points, each with its own references."""

    points: Doubles
    references: Doubles
    rows: Integers
    offsets: Integers
    prior: Prior
    stacked: GalleryPrior


def problem(count: int, points: int, gallery: bool) -> Problem:
    rng, groups = np.random.default_rng(0), count * CANDIDATES
    means = rng.standard_normal((CANDIDATES, DIMENSION)) * (0.5 if gallery else 0.0)
    prior = Prior(means, np.full(CANDIDATES, 12.0 if gallery else 0.0), 4.0, advantage=ADVANTAGE if gallery else 0.0)
    stacked = GalleryPrior(means[None] if gallery else None, prior.weights[None], prior.variance[None], np.array([prior.advantage]))
    return Problem(
        rng.standard_normal((count, points, DIMENSION)),
        rng.standard_normal((groups * REFERENCES, DIMENSION)),
        np.arange(groups * REFERENCES),
        np.arange(groups + 1) * REFERENCES,
        prior,
        stacked,
    )


def on_cpu(count: int, *, points: int = 1, gallery: bool = False, best: float | None = None) -> list[Row]:
    """Refuse to time the fallback: it says nothing about the kernel."""
    if isa() == "reference":
        raise SystemExit("resynth_fast was built without its extension: nothing to measure")
    made = problem(count, points, gallery)
    flat = made.references.ravel()
    copies = f", {points} points" if points > 1 else ""
    return compare(
        "score",
        f"{count}x({CANDIDATES}x{REFERENCES})x{DIMENSION}{copies}{', gallery' if gallery else ''}",
        lambda: score(made.points, made.references, made.rows, made.offsets, made.stacked, WITHIN_TRACE),
        {"numpy": lambda: by_numpy(made)},
        verify=same,
        best=best,
        limit=lambda: flat @ flat,  # BLAS reading the same bytes once
        device=f"{processor()}, {isa()}",
    )


def same(ours: Scores, theirs: Scores) -> None:
    for own, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-10, atol=1e-10)


def by_numpy(made: Problem) -> Scores:
    """As a user would write it, and as this project did: a probe at a time, float64."""
    found = Scores(np.empty((*made.points.shape[:2], CANDIDATES)), np.empty(made.points.shape[:2]))
    cube = made.references.reshape(len(made.points), CANDIDATES, REFERENCES, DIMENSION)
    for p, (own, groups) in enumerate(zip(made.points, map(list, cube), strict=True)):
        for j, point in enumerate(own):
            found.scores[p, j] = scores(point, groups, made.prior)
            found.consistency[p, j] = consistency(point, groups, made.prior)
    return found


def posterior(references: Sequence[Doubles], prior: Prior) -> tuple[Doubles, Doubles, Doubles]:
    """Content (d,), each candidate's expected picture with the content removed (C, d), and its variance (C,)."""
    means = [r.mean(0) for r in references]
    content: Doubles = np.mean(means, axis=0)
    centre = prior.weights[:, None] * prior.means
    centre = centre - centre.mean(0)
    counts = np.array([len(r) for r in references], np.float64)
    gain = prior.variance * counts / (prior.variance * counts + 1)
    shifts = np.stack([m - content - c for m, c in zip(means, centre, strict=True)])
    variance = 1 + prior.variance * (1 - gain)
    return content, centre + gain[:, None] * shifts, variance


def scores(point: Doubles, references: Sequence[Doubles], prior: Prior) -> Doubles:
    content, expected, variance = posterior(references, prior)
    values: Doubles = -((point - content - expected) ** 2).sum(1) / (WITHIN_TRACE * variance) - np.log(variance)
    return values


def consistency(point: Doubles, references: Sequence[Doubles], prior: Prior) -> float:
    means = np.stack([r.mean(0) for r in references])
    value = float((means @ point / (np.linalg.norm(means, axis=1) * np.linalg.norm(point) + 1e-300)).max())
    found: list[float] = []
    for r in references:
        others = (r.sum(0) - r) / (len(r) - 1)
        found += list((others * r).sum(1) / (np.linalg.norm(others, axis=1) * np.linalg.norm(r, axis=1) + 1e-300))
    value -= 0.5 * float(np.mean(found))
    if prior.advantage:
        content, expected, _ = posterior(references, prior)
        rest = point - content
        value += prior.advantage * float((expected @ rest / (np.linalg.norm(expected, axis=1) * np.linalg.norm(rest) + 1e-300)).max())
    return value


if __name__ == "__main__":
    main()
