"""What is known of the candidates before a probe's own references are looked at. Pure, float64."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..arrays import Doubles, Integers
from .whitening import SOLID_CELL, cells, centred

BETWEEN = 0.3
"""Prior variance of a generator's mean, in units of the variance within a cell."""
INTERACTION = 0.1
"""Prior variance of what a generator does to one prompt and not to others, in the same units."""
INTERACTION_KNOWN = 0.03
"""The same where the gallery has three pictures a cell or more, so that its own covariance is in the whitening."""


@dataclass(frozen=True, slots=True)
class Prior:
    """What a gallery says of C candidates, before the probe's own references are looked at."""

    means: Doubles
    """(C, d) whitened mean picture of each candidate over the gallery's prompts, content removed"""
    prompts: Doubles
    """(C,) how many prompts that is the mean of"""
    pictures_per_cell: float
    """pictures in a cell, on average"""
    interaction: float = INTERACTION
    """prior variance of what a generator does to one prompt and not to others"""

    @property
    def weights(self) -> Doubles:
        """(C,) how far each mean is trusted, 0 … 1: by the prompts that it is the mean of."""
        certainty = self.prompts * BETWEEN
        weights: Doubles = certainty / (certainty + self.interaction + 1 / self.pictures_per_cell)
        return weights

    @property
    def variance(self) -> Doubles:
        """(C,) variance of a candidate's pictures of the probe's prompt about what the gallery expects."""
        certainty, rest = self.prompts * BETWEEN, self.interaction + 1 / self.pictures_per_cell
        variance: Doubles = BETWEEN * rest / (certainty + rest) + self.interaction
        return variance

    @property
    def unknown(self) -> float:
        """Variance of the mean of a generator that the gallery does not know; 0 where it does not know every candidate either."""
        return BETWEEN + self.interaction if self.prompts.all() else 0.0


def no_gallery(candidates: int, dimension: int) -> Prior:
    """Nothing is known of the candidates but the probe's own references."""
    return Prior(np.zeros((candidates, dimension)), np.zeros(candidates), 1.0)


def gallery_prior(x: Doubles, generator: Integers, prompt: Integers, candidates: Sequence[int]) -> Prior:
    """What whitened gallery pictures (n, d) say of `candidates`; the content of a prompt is the mean of its candidates' cells."""
    used = np.isin(generator, candidates)
    if not used.any():
        return no_gallery(len(candidates), x.shape[1])
    x, generator, prompt = x[used], generator[used], prompt[used]
    y = centred(x, generator, prompt)
    means, cell, generators, _ = cells(y, generator, prompt)
    found = [means[generators == g] for g in candidates]
    return Prior(
        np.stack([m.mean(0) if len(m) else np.zeros(x.shape[1]) for m in found]),
        np.array([float(len(m)) for m in found]),
        float(np.bincount(cell).mean()),
        INTERACTION_KNOWN if np.bincount(cell).mean() >= SOLID_CELL else INTERACTION,
    )


def batch_prior(cells: Sequence[Doubles], candidates: int, dimension: int, copies: int) -> Prior:
    """What the resyntheses of other captions say: for each caption the candidates' mean resyntheses (C, d), of `copies` pictures."""
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


def remaining_variance(known: Prior, counts: Integers, most: int) -> Doubles:
    """What is still to be learned of each candidate, (C,): the variance of its mean after `counts` (C,) references, less that after `most`."""
    prior = known.variance
    variance: Doubles = prior / (1 + prior * counts) - prior / (1 + prior * np.maximum(counts, most))
    return variance
