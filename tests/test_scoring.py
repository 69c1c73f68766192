"""Whitening and score on made-up Gaussian features, where the right answer is known."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from resynth_fast.scoring.gallery_fit import GalleryFit
from resynth_fast.scoring.prior import ADVANTAGE, batch_priors
from resynth_fast.scoring.score import fit_temperature, probabilities, score
from resynth_fast.scoring.whitening import centred, fit_constants, whitening_of

GENERATORS, PROMPTS, COPIES, DIMENSION = 4, 12, 4, 40
Features = tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]


def gaussian_features(seed: int) -> Features:
    """Features (n, d) with an offset for each generator, a strong content and noise; the generator (n,) and prompt (n,) of each."""
    rng = np.random.default_rng(seed)
    g, p, _ = (a.ravel() for a in np.meshgrid(range(GENERATORS), range(PROMPTS), range(COPIES), indexing="ij"))
    offsets, contents = rng.normal(size=(GENERATORS, DIMENSION)) * 0.6, rng.normal(size=(PROMPTS, DIMENSION)) * 3
    return (offsets[g] + contents[p] + rng.normal(size=(len(g), DIMENSION))).astype(np.float32), g, p


def scores(point: NDArray[np.floating], references: Sequence[NDArray[np.floating]], within_trace: float = 1.0) -> NDArray[np.float64]:
    """(C,) of one point (d,) by C arrays (K, d)."""
    points, groups = point.astype(np.float64)[None, None], [[rows.astype(np.float64) for rows in references]]
    return score(points, groups, within_trace=within_trace).scores[0, 0]


def accuracy(features: Features, score: Callable[[NDArray[np.float64], Sequence[NDArray[np.float64]]], ArrayLike]) -> float:
    """Share of pictures whose best candidate is their generator, each with the other pictures of its prompt as references."""
    x, g, p = features
    hits = []
    for i in range(len(x)):
        others = np.arange(len(x)) != i
        references = [x[(p == p[i]) & (g == c) & others] for c in np.unique(g)]
        hits.append(np.argmax(score(x[i], references)) == g[i])
    return float(np.mean(hits))


def test_a_score_without_the_content_is_better_than_the_nearest_cosine() -> None:
    x, g, p = gaussian_features(0)
    constants = fit_constants(x, {"block": x.shape[1]}, g, p)
    white = whitening_of(constants)
    u = white(constants.scaled(x))

    def without_content(y: NDArray[np.float64], references: Sequence[NDArray[np.float64]]) -> ArrayLike:
        return scores(y, references, within_trace=white.within_trace)

    def cosine(y: NDArray[np.float64], references: Sequence[NDArray[np.float64]]) -> ArrayLike:
        return [max(r @ y / np.linalg.norm(r, axis=1) / np.linalg.norm(y)) for r in references]

    ours, paper = accuracy((u, g, p), without_content), accuracy((x.astype(float), g, p), cosine)
    assert ours > paper + 0.1
    assert ours > 0.6


def test_a_gallery_has_an_advantage_only_over_candidates_that_it_knows() -> None:
    """The unknown threshold of a fit was measured with all its generators, that of a batch of captions with none."""
    x, g, p = gaussian_features(0)
    constants = fit_constants(x, {"block": x.shape[1]}, g, p)
    fit = GalleryFit.of(constants.scaled(x), g, p, ["a", "b", "c", "d"])
    white = fit.whitening(constants)
    assert [fit.prior(white, names).advantage for names in (["d", "a"], ["a", "elsewhere"])] == [ADVANTAGE, 0.0]
    references = [[white(constants.scaled(x[(p == q) & (g == c)])) for c in range(2)] for q in range(3)]
    assert [prior.advantage for prior in batch_priors(["p", "q", "r"], references)] == [0.0] * 3


def test_whitening_shrinks_the_directions_of_noise() -> None:
    x, g, p = gaussian_features(1)
    x[:, 0] += np.random.default_rng(2).normal(size=len(x)).astype(np.float32) * 30
    constants = fit_constants(x, {"block": x.shape[1]}, g, p)
    assert constants.foreign.values.sum() <= 1 + 1e-9
    loud = np.abs(constants.foreign.vectors[:, 0]).argmax()
    scaled = constants.scaled(x)
    u = whitening_of(constants)(scaled)
    assert u[:, loud].std() < scaled[:, loud].std()


def test_every_family_of_degradations_weighs_the_same_however_large_its_changes_are() -> None:
    x, g, p = gaussian_features(1)
    rng = np.random.default_rng(2)
    changes = {family: np.zeros((50, x.shape[1])) for family in ("jpeg", "blur")}
    for column, (family, size) in enumerate((("jpeg", 0.1), ("blur", 10.0))):
        changes[family][:, column] = rng.normal(size=50) * size
    constants = fit_constants(x, {"block": x.shape[1]}, g, p, changes)
    moved = np.eye(2, x.shape[1])
    kept = np.linalg.norm(whitening_of(constants)(moved), axis=1)
    without = np.linalg.norm(whitening_of(constants, families=())(moved), axis=1)
    assert (kept < 0.2 * without).all()
    assert abs(kept[0] / kept[1] - 1) < 0.2
    only = np.linalg.norm(whitening_of(constants, families=["blur"])(moved), axis=1)
    assert abs(only[0] / without[0] - 1) < 0.01


def test_centring_removes_the_mean_of_every_prompt() -> None:
    x, g, p = gaussian_features(3)
    y = centred(x.astype(float), g, p)
    for q in np.unique(p):
        assert np.abs(np.mean([y[(p == q) & (g == c)].mean(0) for c in np.unique(g)], axis=0)).max() < 1e-6


def test_scores_do_not_depend_on_the_order_of_the_candidates() -> None:
    x, g, p = gaussian_features(4)
    references = [x[(p == 0) & (g == c)].astype(float) for c in range(GENERATORS)]
    order = [2, 0, 3, 1]
    np.testing.assert_allclose(scores(x[0], references)[order], scores(x[0], [references[i] for i in order]), rtol=1e-9)


def test_the_temperature_that_generated_the_labels_is_recovered() -> None:
    rng = np.random.default_rng(5)
    truth, rows = [], []
    for _ in range(3000):
        row = rng.normal(size=5)
        rows.append(row / 0.05)
        truth.append(rng.choice(5, p=probabilities(row, 1.0)))
    assert 0.04 < fit_temperature(rows, truth) < 0.06


def test_probes_that_are_all_told_apart_allow_no_certainty_beyond_their_number() -> None:
    for count in (20, 200):
        rows, truth = [2.0 * np.eye(3)[i % 3] for i in range(count)], [i % 3 for i in range(count)]
        named = probabilities(rows[0], fit_temperature(rows, truth))[0]
        assert abs(named - (1 - 1 / (count + 2))) < 0.5 / count


def test_the_within_trace_is_that_of_the_whitened_covariance_within_cells() -> None:
    x, g, p = gaussian_features(6)
    constants = fit_constants(x, {"block": x.shape[1]}, g, p)
    white = whitening_of(constants)
    np.testing.assert_allclose(
        white.within_trace, (white(constants.foreign.rows) ** 2).sum() + 1 - constants.foreign.values.sum(), rtol=1e-9
    )
