"""Priors: where each candidate's pictures lie, before the probe's own references are looked at. Pure, float64."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..types import Doubles, Integers
from .whitening import SOLID_CELL, cells, centred

BETWEEN = 0.3
"""Prior variance of a generator's mean, in units of the variance within a cell."""
INTERACTION = 0.1
"""Prior variance of a generator's effect on a single prompt, in the same units."""
ADVANTAGE = 1.5
"""Weight in the consistency of the cosine with a candidate's expected picture. Of known pictures, with one reference, that cosine has two
thirds of the spread of the cosine that it is added to (.08, and .11 to .13), so both count alike."""
INTERACTION_KNOWN = 0.03
"""The same for a gallery with three pictures per cell or more, whose own covariance is in the whitening."""


@dataclass(frozen=True, slots=True)
class Prior:
    """The prior of C candidates that a gallery, or a batch of probes, gives."""

    means: Doubles
    """(C, d) mean of each candidate's whitened pictures over the prompts, content removed"""
    prompts: Doubles
    """(C,) number of prompts in each mean"""
    pictures_per_cell: float
    """mean number of pictures per cell"""
    interaction: float = INTERACTION
    """prior variance of a generator's effect on a single prompt"""
    advantage: float = 0.0
    """weight in the consistency of the cosine with a candidate's expected picture; 0 where the unknown threshold was measured without"""

    @property
    def weights(self) -> Doubles:
        """(C,) weight of each mean, 0 … 1, which grows with its number of prompts."""
        certainty = self.prompts * BETWEEN
        weights: Doubles = certainty / (certainty + self.interaction + 1 / self.pictures_per_cell)
        return weights

    @property
    def variance(self) -> Doubles:
        """(C,) variance of a candidate's mean picture of the probe's prompt about the mean that the gallery expects."""
        certainty, rest = self.prompts * BETWEEN, self.interaction + 1 / self.pictures_per_cell
        variance: Doubles = BETWEEN * rest / (certainty + rest) + self.interaction
        return variance


def no_gallery(candidates: int, dimension: int) -> Prior:
    """The prior without a gallery: the probe's own references decide alone."""
    return Prior(np.zeros((candidates, dimension)), np.zeros(candidates), 1.0)


def gallery_prior(x: Doubles, generator: Integers, prompt: Integers, candidates: Sequence[int]) -> Prior:
    """Prior of `candidates` from whitened gallery pictures (n, d); the content of a prompt is the mean of its candidates' cells."""
    used = np.isin(generator, candidates)
    if not used.any():
        return no_gallery(len(candidates), x.shape[1])
    x, generator, prompt = x[used], generator[used], prompt[used]
    y = centred(x, generator, prompt)
    means, cell, generators, _ = cells(y, generator, prompt)
    own = [means[generators == g] for g in candidates]
    return Prior(
        np.stack([m.mean(0) if len(m) else np.zeros(x.shape[1]) for m in own]),
        np.array([float(len(m)) for m in own]),
        float(np.bincount(cell).mean()),
        INTERACTION_KNOWN if np.bincount(cell).mean() >= SOLID_CELL else INTERACTION,
    )


def batch_prior(cells: Sequence[Doubles], candidates: int, dimension: int, copies: int) -> Prior:
    """Prior from the resyntheses of other captions: per caption a cell (C, d), the candidates' means of `copies` pictures each."""
    if not cells:
        return no_gallery(candidates, dimension)
    means: Doubles = np.mean([cell - cell.mean(0) for cell in cells], axis=0)
    return Prior(means, np.full(candidates, float(len(cells))), float(copies))


def batch_priors(captions: Sequence[str], references: Sequence[Sequence[Doubles]]) -> list[Prior]:
    """For each probe, the prior that the resyntheses of the other captions of its batch give.

    `references` has, for each probe, C arrays (K, d). The probe's own caption takes no part, and no probe does.
    """
    cells = {caption: np.stack([r.mean(0) for r in rows]) for caption, rows in zip(captions, references, strict=True)}
    copies = len(references[0][0])
    priors = {
        caption: batch_prior([cell for other, cell in cells.items() if other != caption], len(own), own.shape[1], copies)
        for caption, own in cells.items()
    }
    return [priors[caption] for caption in captions]


def remaining_variance(prior: Prior, counts: Integers, most: int) -> Doubles:
    """(C,) variance that further references can still remove: that of each mean after `counts` (C,) references, less that after `most`."""
    first = prior.variance
    variance: Doubles = first / (1 + first * counts) - first / (1 + first * np.maximum(counts, most))
    return variance
