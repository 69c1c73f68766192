"""From features to scores: scaling, whitening, and a Gaussian score on content-centred features. Pure, float64.

No network is trained. What is fitted, in closed form, is a classical within-class whitening: constants of the
*extractor* (`Constants`), and, where there is a gallery of the candidates' pictures, what it says of them (`Prior`).
Pictures are labelled by generator and prompt; all those of one generator and one prompt are a *cell*.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

BETWEEN = 0.3
"""Prior variance of a generator's mean, in units of the variance within a cell."""
INTERACTION = 0.1
"""Prior variance of what a generator does to one prompt and not to others, in the same units."""
INTERACTION_KNOWN = 0.03
"""The same where the gallery has three pictures a cell or more, so that its own covariance is in the whitening."""
RIDGE = 0.3
RANK = 300
NUISANCE_RANK = 60
"""Directions kept for each family of degradations."""
NUISANCE_SHARE = 0.5
"""Trace of the degradations' second moment beside that of the covariance within cells."""
OWN_SHARE = 0.8
"""Share of the gallery's own covariance in the whitening, three pictures a cell or more."""
SOLID_CELL = 3


@dataclass(frozen=True, slots=True)
class Moment:
    """A second moment of features (d columns) by its leading eigenvectors; its whole trace, what was cut off included, is 1."""

    vectors: Doubles
    """(d, r), orthonormal columns"""
    values: Doubles
    """(r,)"""

    @property
    def rows(self) -> Doubles:
        """(r, d) whose second moment this is."""
        return (self.vectors * np.sqrt(self.values)).T


@dataclass(frozen=True, slots=True)
class Constants:
    """What scales and whitens an extractor's features (d columns), fitted on generators that need not be candidates."""

    mean: Doubles
    """(d,)"""
    scale: Doubles
    """(d,), standard deviation of the column, content removed, times the square root of its block's size: blocks weigh the same."""
    foreign: Moment
    """How pictures of one cell differ."""
    nuisance: Mapping[str, Doubles] = field(default_factory=dict)
    """How features move when a picture is degraded: family (recompressed, resized …) → rows (r, d), their second moment."""

    def scaled(self, features: npt.NDArray[np.floating]) -> Doubles:
        """(n, d) features → (n, d), zero mean and equal blocks."""
        result: Doubles = (features.astype(np.float64) - self.mean) / self.scale
        return result


@dataclass(frozen=True, slots=True)
class Whitening:
    """u = x − Σ_i (1 − sqrt(ρ / (w_i + ρ))) (v_iᵀ x) v_i, ρ the ridge: directions that vary within a cell count less."""

    vectors: Doubles
    shrink: Doubles
    energy: float
    """Trace of the whitened covariance within cells, that of the scaled one being 1."""

    def __call__(self, x: Doubles) -> Doubles:
        """(n, d) scaled → (n, d) whitened."""
        result: Doubles = x - (x @ self.vectors * self.shrink) @ self.vectors.T
        return result


@dataclass(frozen=True, slots=True)
class Prior:
    """What a gallery says of C candidates, before the probe's own references are looked at."""

    means: Doubles
    """(C, d) whitened mean picture of each candidate over the gallery's prompts, content removed"""
    prompts: Doubles
    """(C,) how many prompts that is the mean of"""
    cell: float
    """pictures in a cell, on average"""
    interaction: float = INTERACTION
    """prior variance of what a generator does to one prompt and not to others"""


def no_gallery(candidates: int, dimension: int) -> Prior:
    """Nothing is known of the candidates but the probe's own references."""
    return Prior(np.zeros((candidates, dimension)), np.zeros(candidates), 1.0)


# --- fitting -----------------------------------------------------------------------------------------------------


def fit(
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
    for size in block_sizes.values():  # a nearly constant column must not be blown up
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
    means, cell, _, prompts = _cells(x, generator, prompt)
    y = x.copy()
    for q in np.unique(prompts):
        y[prompts[cell] == q] -= means[prompts == q].mean(0)
    return y


def within(x: Doubles, generator: Integers, prompt: Integers) -> Doubles:
    """Rows (m, d) whose sum of squares is the covariance within cells, unbiased.

    With one picture in a cell, what a generator's pictures do about its mean, content removed, takes its place.
    """
    y = centred(x, generator, prompt)
    means, cell, generators, _ = _cells(y, generator, prompt)
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
    """The second moment of `rows` (m, d), its trace made 1."""
    vectors, values = _eigen(rows / np.sqrt((rows**2).sum()), rank)
    return Moment(vectors, values)


def whitening(
    constants: Constants, own: Moment | None = None, share: float = OWN_SHARE, families: Collection[str] | None = None
) -> Whitening:
    """The whitening by an extractor's constants and, weighing `share`, the covariance `own` within a gallery's cells.

    `families` of degradations count as much as the difference of pictures does; None: all that the constants have.
    """
    share = 0.0 if own is None else share
    clean = [np.sqrt(1 - share) * constants.foreign.rows]
    if own is not None and share:
        clean.append(np.sqrt(share) * own.rows)
    moved = [rows for family, rows in constants.nuisance.items() if families is None or family in families]
    if moved:
        together = np.concatenate(moved)
        moved = [np.sqrt(NUISANCE_SHARE) * together / np.sqrt((together**2).sum())]
    vectors, values = _eigen(np.concatenate([*clean, *moved]), RANK * (len(clean) + len(moved)))
    ridge = RIDGE * (1 + NUISANCE_SHARE * len(moved)) / 200
    shrink = 1 - np.sqrt(ridge / (values + ridge))
    rows = np.concatenate(clean)
    whole = float((rows**2).sum())
    lost = max(0.0, 1 - whole)  # what the leading eigenvectors leave out is not shrunk
    taken = float((shrink * (2 - shrink)) @ ((rows @ vectors) ** 2).sum(0))
    return Whitening(vectors, shrink, whole - taken + lost)


def own_share(cell: float, pictures: int) -> float:
    """How much the covariance of a gallery of `pictures`, `cell` in each cell, weighs in the whitening."""
    return OWN_SHARE if cell >= SOLID_CELL else pictures / (pictures + 60)


def prior(x: Doubles, generator: Integers, prompt: Integers, candidates: Sequence[int]) -> Prior:
    """What whitened gallery pictures (n, d) say of `candidates`; the content of a prompt is the mean of its candidates' cells."""
    used = np.isin(generator, candidates)
    if not used.any():
        return no_gallery(len(candidates), x.shape[1])
    x, generator, prompt = x[used], generator[used], prompt[used]
    y = centred(x, generator, prompt)
    means, cell, generators, _ = _cells(y, generator, prompt)
    found = [means[generators == g] for g in candidates]
    return Prior(
        np.stack([m.mean(0) if len(m) else np.zeros(x.shape[1]) for m in found]),
        np.array([float(len(m)) for m in found]),
        float(np.bincount(cell).mean()),
        INTERACTION_KNOWN if np.bincount(cell).mean() >= SOLID_CELL else INTERACTION,
    )


def lent(cells: Sequence[Doubles], candidates: int, dimension: int, copies: int) -> Prior:
    """What the resyntheses of other captions say: for each caption the candidates' mean resyntheses (C, d), of `copies` pictures."""
    if not cells:
        return no_gallery(candidates, dimension)
    means: Doubles = np.mean([cell - cell.mean(0) for cell in cells], axis=0)
    return Prior(means, np.full(candidates, float(len(cells))), float(copies))


def _cells(x: Doubles, generator: Integers, prompt: Integers) -> tuple[Doubles, Integers, Integers, Integers]:
    """Means of the cells (m, d), each picture's cell (n,), each cell's generator and prompt (m,)."""
    keys, cell = np.unique(np.stack([generator, prompt]), axis=1, return_inverse=True)
    cell = cell.reshape(-1)
    order = np.argsort(cell, kind="stable")
    starts = np.searchsorted(cell[order], np.arange(keys.shape[1]))
    means: Doubles = np.add.reduceat(x[order], starts) / np.bincount(cell)[:, None]
    return means, cell, keys[0], keys[1]


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
    kept: Integers = order[values[order] > 1e-9 * values.max(initial=0.0)]
    return kept


# --- scoring -----------------------------------------------------------------------------------------------------


def scores(
    probe: Doubles, references: Sequence[Doubles], known: Prior | None = None, energy: float = 1.0, content: Doubles | None = None
) -> Doubles:
    """How well each candidate explains the probe: (d,) and C × (K, d), whitened → (C,), higher is closer.

    The references serve twice: their mean over candidates estimates the content, which is subtracted; and a
    candidate's own mean, where the gallery's prior leaves room for it, is where its pictures should lie. The score has
    the form of a log-likelihood: −|q − post|² / (energy · variance) − log variance. With one number of references and of
    gallery prompts for all candidates only the first term differs; where they differ, the second keeps a candidate with
    few references from being punished, or favoured, for it. A candidate without
    references is judged by the gallery alone. `content` (d,) is given where it is known otherwise.
    """
    known = known or no_gallery(len(references), len(probe))
    means = [r.mean(0) if len(r) else None for r in references]
    content = _content(references) if content is None else content
    posterior, variance = _posterior(means, content, references, known)
    distance: Doubles = ((probe - content - posterior) ** 2).sum(1)
    return -distance / (energy * variance) - np.log(variance)


def _content(references: Sequence[Doubles]) -> Doubles:
    """What the pictures show, whoever made them: the mean over candidates of their mean references."""
    content: Doubles = np.mean([r.mean(0) for r in references if len(r)], axis=0)
    return content


def _posterior(means: Sequence[Doubles | None], content: Doubles, references: Sequence[Doubles], known: Prior) -> tuple[Doubles, Doubles]:
    """Where each candidate's next picture lies, (C, d), and its variance (C,), in units of the variance within a cell."""
    certainty = known.prompts * BETWEEN
    centre = (certainty / (certainty + known.interaction + 1 / known.cell))[:, None] * known.means
    centre = centre - centre.mean(0)
    spread = _spread(known)
    counts = np.array([len(r) for r in references], np.float64)
    gain = spread * counts / (spread * counts + 1)  # spread / (spread + 1 / K)
    shifts = np.stack([np.zeros_like(content) if m is None else m - content - c for m, c in zip(means, centre, strict=True)])
    return centre + gain[:, None] * shifts, 1 + spread * (1 - gain)


def _spread(known: Prior) -> Doubles:
    """Variance of a candidate's pictures of the probe's prompt about what the gallery expects, (C,)."""
    certainty, rest = known.prompts * BETWEEN, known.interaction + 1 / known.cell
    spread: Doubles = BETWEEN * rest / (certainty + rest) + known.interaction
    return spread


def unsettled(known: Prior, counts: Integers, most: int) -> Doubles:
    """What is still to be learned of each candidate, (C,): the variance of its mean after `counts` (C,) references, less that after `most`."""
    spread = _spread(known)
    variance: Doubles = spread / (1 + spread * counts) - spread / (1 + spread * np.maximum(counts, most))
    return variance


def nearest(probe: Doubles, references: Sequence[Doubles]) -> Doubles:
    """The paper's score: the cosine with a candidate's nearest reference; (d,) and C × (K, d) → (C,)."""
    own = probe / np.linalg.norm(probe)
    return np.array([float((r @ own / np.linalg.norm(r, axis=1)).max()) for r in references])


def consistency(probe: Doubles, references: Sequence[Doubles], known: Prior | None = None, energy: float = 1.0) -> float:
    """How much a probe looks like a picture of one of the candidates; low for pictures that none of them makes.

    The highest cosine with a candidate's mean reference, content not removed. With two references or more, half of what
    the resyntheses have in common among themselves is subtracted: some captions leave more open than others. With a
    gallery that knows every candidate, twice the best candidate's advantage over an unknown generator is added.
    """
    present = [r for r in references if len(r)]
    means = np.stack([r.mean(0) for r in present])
    best = float((means @ probe / (np.linalg.norm(means, axis=1) * np.linalg.norm(probe) + 1e-300)).max())
    value = best - 0.5 * agreement(present)
    if known is not None and known.prompts.all():
        value += 2 * _advantage(probe, references, known, energy)
    return value


def agreement(references: Sequence[Doubles]) -> float:
    """Mean cosine of a reference with the mean of the others of its candidate; 0 where no candidate has two."""
    found: list[float] = []
    for r in references:
        if len(r) > 1:
            others = (r.sum(0) - r) / (len(r) - 1)
            lengths = np.linalg.norm(others, axis=1) * np.linalg.norm(r, axis=1) + 1e-300
            found += list((others * r).sum(1) / lengths)
    return float(np.mean(found)) if found else 0.0


def _advantage(probe: Doubles, references: Sequence[Doubles], known: Prior, energy: float) -> float:
    """How much better the best candidate explains the probe than an unknown generator would, whose mean has the prior's variance."""
    spread = 1 + BETWEEN + known.interaction
    background = -float(((probe - _content(references)) ** 2).sum()) / (energy * spread) - float(np.log(spread))
    best = float(scores(probe, references, known, energy).max())
    return (best - 0.75 * background) / 2


def probabilities(values: Doubles, temperature: float) -> Doubles:
    """softmax(temperature · scores) over candidates (C,)."""
    odds: Doubles = np.exp(temperature * (values - values.max()))
    probability: Doubles = odds / odds.sum()
    return probability


def fit_temperature(rows: Sequence[Doubles], truth: Sequence[int]) -> float:
    """The temperature with the least negative log-likelihood on labelled probes, to two digits, by a grid."""
    grid = np.geomspace(1e-3, 1e4, 421)
    table = np.stack(rows)
    table = table - table.max(1, keepdims=True)
    own = table[np.arange(len(table)), np.asarray(truth)]
    losses = [float((np.log(np.exp(t * table).sum(1)) - t * own).mean()) for t in grid]
    return float(f"{grid[int(np.argmin(losses))]:.2g}")
