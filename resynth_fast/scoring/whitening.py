"""Scaling and whitening of features, by an extractor's constants and a gallery's covariance. Pure, float64.

No network is trained. The constants are fitted in closed form: a classical within-class whitening. Pictures are labelled
by generator and prompt; the pictures of one generator and one prompt are a *cell*.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ..types import Doubles, Integers

RIDGE = 0.0015
"""Variance that whitening halves; larger ones shrink more. The trace of the covariance within cells is 1."""
RANK = 300
NUISANCE_RANK = 60
"""Number of directions per family of degradations."""
NUISANCE_SHARE = 4.0
"""Trace of the degradations' second moment, in which every family has the same part, relative to that of the covariance within cells.

Chosen on zoo probes of training captions: above 1 the accuracy of degraded probes hardly grows, and that of clean ones hardly falls.
`resynth evaluate zoo: --protocol robustness` measures what it is worth."""
GALLERY_WEIGHT = 0.8
"""Weight of the gallery's own covariance in the whitening, with three pictures per cell or more."""
SOLID_CELL = 3
ORTHONORMAL_WITHIN = 1e-3
"""Unit rows rounded to 16 bits have products within twice 2⁻¹² of those of the exact rows."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A second moment of features (d columns) by its leading eigenvectors; its full trace, truncated directions included, is 1."""

    vectors: Doubles
    """(d, r), orthonormal columns"""
    values: Doubles
    """(r,)"""

    @property
    def rows(self) -> Doubles:
        """Rows (r, d) that have this second moment."""
        return (self.vectors * np.sqrt(self.values)).T


@dataclass(frozen=True, slots=True)
class Constants:
    """Constants that scale and whiten an extractor's features (d columns), fitted on generators that need not be candidates."""

    mean: Doubles
    """(d,)"""
    scale: Doubles
    """(d,) standard deviation of each column, content removed, times the square root of its block's size: blocks weigh the same"""
    foreign: Moment
    """Second moment of the differences between pictures of one cell."""
    nuisance: Mapping[str, Doubles] = field(default_factory=dict)
    """Changes of features by degradations: family (recompressed, resized …) → rows (r, d) with the second moment of the changes."""

    def scaled(self, features: npt.NDArray[np.floating]) -> Doubles:
        """(n, d) features → (n, d), zero mean and equal blocks."""
        result: Doubles = (features.astype(np.float64) - self.mean) / self.scale
        return result


@dataclass(frozen=True, slots=True)
class Whitening:
    """u = x − Σ_i (1 − sqrt(ρ / (w_i + ρ))) (v_iᵀ x) v_i, ρ the ridge: directions that vary within a cell count less."""

    vectors: Doubles
    shrink: Doubles
    within_trace: float
    """Trace of the covariance within cells after whitening; before it, the trace is 1."""

    def __call__(self, x: Doubles) -> Doubles:
        """(n, d) scaled → (n, d) whitened."""
        result: Doubles = x - (x @ self.vectors * self.shrink) @ self.vectors.T
        return result


def fit_constants(
    features: npt.NDArray[np.floating],
    block_sizes: Mapping[str, int],
    generator: Integers,
    prompt: Integers,
    degraded: Mapping[str, npt.NDArray[np.floating]] | None = None,
) -> Constants:
    """Constants from pictures (n, d) labelled by generator and prompt.

    `degraded` are differences (m, d) for each family: features of a degraded picture minus those of the clean one.
    """
    x = features.astype(np.float64)
    sizes = np.concatenate([np.full(size, size, np.float64) for size in block_sizes.values()])
    deviation = centred(x, generator, prompt).std(0)
    start = 0
    for size in block_sizes.values():  # a nearly constant column must not be amplified
        block = slice(start, start + size)
        deviation[block] += 1e-3 * deviation[block].mean() + 1e-8
        start += size
    mean, scale = x.mean(0), deviation * np.sqrt(sizes)
    foreign = moment(within((x - mean) / scale, generator, prompt))
    nuisance = {}
    for family, differences in (degraded or {}).items():
        vectors, values = _eigen(differences.astype(np.float64) / scale / np.sqrt(len(differences)), NUISANCE_RANK)
        nuisance[family] = (vectors * np.sqrt(values)).T
    return Constants(mean, scale, foreign, nuisance)


def centred(x: Doubles, generator: Integers, prompt: Integers) -> Doubles:
    """Content removed: x (n, d) minus, per prompt, the mean over generators of their cells' means."""
    means, cell, _, prompts = cells(x, generator, prompt)
    y = x.copy()
    for q in np.unique(prompts):
        y[prompts[cell] == q] -= means[prompts == q].mean(0)
    return y


def within(x: Doubles, generator: Integers, prompt: Integers) -> Doubles:
    """Rows (m, d) whose sum of squares is the covariance within cells, unbiased.

    If a cell has a single picture, the covariance of a generator's cells about its mean, content removed, takes its place.
    """
    y = centred(x, generator, prompt)
    means, cell, generators, _ = cells(y, generator, prompt)
    count = np.bincount(cell)
    if (count > 1).all():
        result: Doubles = (y - means[cell]) / np.sqrt((1 - 1 / count.mean()) * len(y))
        return result
    names, owner = np.unique(generators, return_inverse=True)
    own = np.stack([means[owner == g].mean(0) for g in range(len(names))])
    freedom = len(means) - len(names)
    if freedom < 1:
        raise ValueError("the covariance within generators needs two pictures of a generator, of one prompt or of two")
    rest: Doubles = (means - own[owner]) / np.sqrt(freedom)
    return rest


def moment(rows: Doubles, rank: int = RANK) -> Moment:
    """The second moment of `rows` (m, d), scaled to trace 1."""
    vectors, values = _eigen(rows / np.sqrt((rows**2).sum()), rank)
    return Moment(vectors, values)


def whitening_of(
    constants: Constants, own: Moment | None = None, share: float = GALLERY_WEIGHT, families: Collection[str] | None = None
) -> Whitening:
    """The whitening by an extractor's constants and, with weight `share`, the covariance `own` within a gallery's cells.

    `families`: the degradations that are whitened too; None: all of the constants.
    """
    share = 0.0 if own is None else share
    clean = [np.sqrt(1 - share) * constants.foreign.rows]
    if own is not None and share:
        clean.append(np.sqrt(share) * own.rows)
    degraded = [rows for family, rows in constants.nuisance.items() if (families is None or family in families) and rows.any()]
    degraded = [np.sqrt(NUISANCE_SHARE / len(degraded) / (rows**2).sum()) * rows for rows in degraded]
    vectors, values = _eigen(np.concatenate([*clean, *degraded]), RANK * (len(clean) + bool(degraded)))
    shrink = 1 - np.sqrt(RIDGE / (values + RIDGE))
    rows = np.concatenate(clean)
    whole = float((rows**2).sum())
    lost = max(0.0, 1 - whole)  # directions beyond the leading eigenvectors are not shrunk
    taken = float((shrink * (2 - shrink)) @ ((rows @ vectors) ** 2).sum(0))
    return Whitening(vectors, shrink, whole - taken + lost)


def gallery_weight(cell: float, pictures: int) -> float:
    """Weight in the whitening of the covariance of a gallery with `pictures` pictures, `cell` of them per cell."""
    return GALLERY_WEIGHT if cell >= SOLID_CELL else pictures / (pictures + 60)


def cells(x: Doubles, generator: Integers, prompt: Integers) -> tuple[Doubles, Integers, Integers, Integers]:
    """Means of the cells (m, d), the cell of each picture (n,), the generator and the prompt of each cell (m,)."""
    keys, cell = np.unique(np.stack([generator, prompt]), axis=1, return_inverse=True)
    cell = cell.reshape(-1)
    order = np.argsort(cell, kind="stable")
    starts = np.searchsorted(cell[order], np.arange(keys.shape[1]))
    means: Doubles = np.add.reduceat(x[order], starts) / np.bincount(cell)[:, None]
    return means, cell, keys[0], keys[1]


def check_orthonormal(rows: Doubles, name: str) -> None:
    """ValueError, calling them `name`, unless the rows (r, d), as stored in 16 bits, are orthogonal and of length 1.

    Eigenvectors are. Numbers that were stored in another order than they are read in are not, and nothing else would show it:
    whitening by random directions gives plausible scores.
    """
    error = float(np.abs(rows @ rows.T - np.eye(len(rows))).max(initial=0.0))
    if error > ORTHONORMAL_WITHIN:
        raise ValueError(f"the directions of the {name} are not orthogonal: their products are wrong by up to {error:.1e}")


def _eigen(rows: Doubles, rank: int) -> tuple[Doubles, Doubles]:
    """Leading eigenvectors (d, r) and eigenvalues (r,) of rowsᵀ rows, through the smaller of the two Gram matrices."""
    if len(rows) > rows.shape[1]:
        values, vectors = np.linalg.eigh(rows.T @ rows)
        keep = _leading(values, rank)
        return vectors[:, keep], values[keep]
    values, combinations = np.linalg.eigh(rows @ rows.T)
    keep = _leading(values, rank)
    return rows.T @ combinations[:, keep] / np.sqrt(values[keep]), values[keep]


def _leading(values: Doubles, rank: int) -> Integers:
    order: Integers = np.argsort(-values)[:rank]
    leading: Integers = order[values[order] > 1e-9 * values.max(initial=0.0)]
    return leading
