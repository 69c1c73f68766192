"""The score on made-up Gaussian features, where the right answer is known."""

import numpy as np

from resynth_fast.scoring.score import fit_temperature, probabilities, scores
from resynth_fast.scoring.whitening import centred, fit_constants, whitening_of

RNG = np.random.default_rng(0)


def world(generators=4, prompts=12, copies=4, d=40, spread=0.6, content=3.0):
    """Features with a generator's offset, a strong content, and noise; rows, generator, prompt."""
    g, p, _ = (a.ravel() for a in np.meshgrid(range(generators), range(prompts), range(copies), indexing="ij"))
    offsets, contents = RNG.normal(size=(generators, d)) * spread, RNG.normal(size=(prompts, d)) * content
    return (offsets[g] + contents[p] + RNG.normal(size=(len(g), d))).astype(np.float32), g, p


def accuracy(x, g, p, score):
    hits = []
    for i in range(len(x)):
        others = np.arange(len(x)) != i
        references = [x[(p == p[i]) & (g == c) & others] for c in np.unique(g)]
        hits.append(np.argmax(score(x[i], references)) == g[i])
    return np.mean(hits)


def test_removing_the_content_beats_cosine_with_the_nearest():
    x, g, p = world()
    constants = fit_constants(x, {"block": x.shape[1]}, g, p)
    white = whitening_of(constants)
    u = white(constants.scaled(x))

    def ours_by(y, references):
        return scores(y, references, within_trace=white.within_trace)

    def cosine(y, references):
        return [max(r @ y / np.linalg.norm(r, axis=1) / np.linalg.norm(y)) for r in references]

    ours, paper = accuracy(u, g, p, ours_by), accuracy(x.astype(float), g, p, cosine)
    assert ours > paper + 0.1
    assert ours > 0.6


def test_whitening_shrinks_the_directions_of_noise():
    x, g, p = world()
    x[:, 0] += RNG.normal(size=len(x)).astype(np.float32) * 30
    constants = fit_constants(x, {"block": x.shape[1]}, g, p)
    assert constants.foreign.values.sum() <= 1 + 1e-9
    loud = np.abs(constants.foreign.vectors[:, 0]).argmax()
    scaled = constants.scaled(x)
    u = whitening_of(constants)(scaled)
    assert u[:, loud].std() < scaled[:, loud].std()


def test_centring_leaves_nothing_of_a_prompt():
    x, g, p = world()
    y = centred(x.astype(float), g, p)
    for q in np.unique(p):
        assert np.abs(np.mean([y[(p == q) & (g == c)].mean(0) for c in np.unique(g)], axis=0)).max() < 1e-6


def test_scores_follow_a_permutation_of_the_candidates():
    x, g, p = world()
    references = [x[(p == 0) & (g == c)].astype(float) for c in range(4)]
    order = [2, 0, 3, 1]
    np.testing.assert_allclose(
        scores(x[0].astype(float), references)[order], scores(x[0].astype(float), [references[i] for i in order]), rtol=1e-9
    )


def test_temperature_is_recovered():
    truth, rows = [], []
    for _ in range(3000):
        row = RNG.normal(size=5)
        rows.append(row / 0.05)
        truth.append(RNG.choice(5, p=probabilities(row, 1.0)))
    assert 0.04 < fit_temperature(rows, truth) < 0.06


def test_energy_is_what_the_whitening_leaves_of_the_covariance_within_cells():
    x, g, p = world()
    constants = fit_constants(x, {"block": x.shape[1]}, g, p)
    white = whitening_of(constants)
    np.testing.assert_allclose(
        white.within_trace, (white(constants.foreign.rows) ** 2).sum() + 1 - constants.foreign.values.sum(), rtol=1e-9
    )
