"""From features to scores: scaling, whitening, and a Gaussian score on content-centred features. Pure, float64.

No network is trained. What is fitted, in closed form, are constants of the *extractor*: the mean and scale of each
feature and the covariance within one generator and prompt, a classical within-class whitening.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

BETWEEN = 0.3
"""Prior variance of a generator's mean, in units of the variance within a generator and prompt."""
INTERACTION = 0.1
"""Prior variance of what a generator does to one prompt and not to others, in the same units."""
RIDGE = 0.3
RANK = 300


@dataclass(frozen=True, slots=True)
class Constants:
    """What scales and whitens an extractor's features (d columns)."""

    mean: Doubles
    """(d,)"""
    scale: Doubles
    """(d,), standard deviation of the column times the square root of its block's size: blocks weigh the same."""
    vectors: Doubles
    """(d, r), orthonormal columns: directions in which pictures of one generator and prompt differ."""
    values: Doubles
    """(r,), the variances along them; all of the variance, together with what was cut off, sums to 1."""

    def project(self, features: npt.NDArray[np.float32]) -> Doubles:
        """(n, d) features → (n, d) scaled and whitened: u = x − Σ_i (1 − sqrt(ρ / (w_i + ρ))) (v_iᵀ x) v_i, ρ the ridge."""
        scaled = (features.astype(np.float64) - self.mean) / self.scale
        ridge = RIDGE / 200
        shrink = 1 - np.sqrt(ridge / (self.values + ridge))
        projected: Doubles = scaled - (scaled @ self.vectors * shrink) @ self.vectors.T
        return projected


def fit(features: npt.NDArray[np.float32], block_sizes: Mapping[str, int], generator: Integers, prompt: Integers) -> Constants:
    """Constants from pictures (n, d) labelled by generator and prompt, two or more for each pair of them."""
    x = features.astype(np.float64)
    sizes = np.concatenate([np.full(size, size, np.float64) for size in block_sizes.values()])
    deviation = centred(x, generator, prompt).std(0)
    start = 0
    for size in block_sizes.values():  # a nearly constant column must not be blown up
        block = slice(start, start + size)
        deviation[block] += 1e-3 * deviation[block].mean() + 1e-8
        start += size
    mean, scale = x.mean(0), deviation * np.sqrt(sizes)
    rows = _within((x - mean) / scale, generator, prompt)
    rows /= np.sqrt((rows**2).sum())
    w, u = np.linalg.eigh(rows @ rows.T)
    keep = [i for i in np.argsort(-w)[:RANK] if w[i] > 1e-9 * w.max()]
    return Constants(mean, scale, rows.T @ u[:, keep] / np.sqrt(w[keep]), w[keep])


def centred(x: Doubles, generator: Integers, prompt: Integers) -> Doubles:
    """Content removed: x (n, d) minus, per prompt, the mean over generators of their mean picture."""
    y = x.copy()
    for q in np.unique(prompt):
        rows = prompt == q
        y[rows] -= np.mean([x[rows & (generator == g)].mean(0) for g in np.unique(generator[rows])], axis=0)
    return y


def _within(x: Doubles, generator: Integers, prompt: Integers) -> Doubles:
    """Each picture minus the mean of its generator and prompt."""
    y = x.copy()
    for q in np.unique(prompt):
        for g in np.unique(generator):
            rows = (prompt == q) & (generator == g)
            if rows.any():
                y[rows] -= y[rows].mean(0)
    return y


def scores(probe: Doubles, references: Sequence[Doubles]) -> Doubles:
    """How well each candidate explains the probe: (d,) and C × (K, d), projected → (C,), higher is closer.

    The references serve twice: their mean over candidates estimates the content, which is subtracted; and a
    candidate's own mean, shrunk by its uncertainty 1/K, is where its pictures should lie. Without a gallery the
    prior of that mean is 0 with variance BETWEEN + INTERACTION.
    """
    means = np.stack([r.mean(0) for r in references])
    uncertainty = np.array([1 / len(r) for r in references])
    content = means.mean(0)
    prior = BETWEEN + INTERACTION
    posterior = (prior / (prior + uncertainty))[:, None] * (means - content)
    variance = 1 + prior * uncertainty / (prior + uncertainty)
    distance: Doubles = ((probe - content - posterior) ** 2).sum(1)
    return -distance / variance


def probabilities(values: Doubles, temperature: float) -> Doubles:
    """softmax(temperature · scores) over candidates (C,)."""
    odds: Doubles = np.exp(temperature * (values - values.max()))
    probability: Doubles = odds / odds.sum()
    return probability


def fit_temperature(rows: Sequence[Doubles], truth: Sequence[int]) -> float:
    """The temperature with the least negative log-likelihood on labelled probes, to two digits, by a grid."""
    grid = np.geomspace(1e-3, 1e3, 361)
    losses = [-np.mean([np.log(probabilities(row, t)[g] + 1e-12) for row, g in zip(rows, truth, strict=True)]) for t in grid]
    return float(f"{grid[int(np.argmin(losses))]:.2g}")
