"""Sources that cannot be run, judged by all their pictures and calibrated on these very pictures. Pure, float64.

This is linear discriminant analysis. The covariance within the sources joins the whitening, and a source is the mean of its
pictures. What pictures show varies within a source, so the whitening shrinks those directions, and the content of a probe
need not be known. What a source shows and who made it cannot be told apart where sources show different things.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..kernels.similarity import Scores
from ..types import Booleans, Doubles, Integers
from .calibration import NEVER, NO_THRESHOLD, UNCALIBRATED, Calibration, CalibrationPoint, fit_point
from .prior import BETWEEN, INTERACTION
from .score import probabilities
from .whitening import Constants, Whitening, gallery_weight, moment, whitening_of

FOLDS = 5
"""Parts of the pictures that are left out in turn. Pictures of one prompt, or of like content, are in one part."""
LEAST_PICTURES = 8
"""Pictures of a source, at least, without which nothing is calibrated."""
MOST_PICTURES = 1500
"""Pictures of all sources together, at most; more cost minutes and change little."""
OWN_SHARE = 0.5
"""Weight in the whitening, at most, of the covariance within the sources, which holds their pictures' content too."""
NAMED_STRANGERS = 0.10
"""Share of a withheld source's pictures, at most, for which a source is named."""
TYPICAL = 2 / 3
"""Of two sources, a picture is named only if it is more consistent with one than this share of their own pictures are."""
WITHHELD = 5
"""Sources, or groups of sources, that are withheld in turn."""


@dataclass(frozen=True, slots=True)
class SourceModel:
    """What is known of C sources: where their pictures lie in a whitening of their own."""

    whitening: Whitening
    means: Doubles
    """(C, d), whitened"""
    counts: Doubles
    """(C,) number of pictures of each"""

    @classmethod
    def of(cls, constants: Constants, x: Doubles, source: Integers) -> SourceModel:
        """The model of scaled pictures (n, d) by the sources `source` (n,), 0 … C − 1, each with a picture."""
        counts = np.bincount(source).astype(np.float64)
        means = np.stack([x[source == c].mean(0) for c in range(len(counts))])
        freedom = len(x) - len(counts)
        own = moment((x - means[source]) / math.sqrt(freedom)) if freedom > 0 and (x != means[source]).any() else None
        whitening = whitening_of(constants, own, min(OWN_SHARE, gallery_weight(1, len(x))))
        return cls(whitening, whitening(means), counts)

    def __call__(self, points: Doubles) -> Scores:
        """Scores (P, n, C) and consistency (P, n) of scaled points (P, n, d). Not even the last bit depends on other points.

        The score is that of `kernels.similarity.score` with all pictures as references and their mean as the content. The
        consistency is the cosine with the mean of the source that comes first.
        """
        content, variance = self.means.mean(0), BETWEEN + INTERACTION
        gain = variance * self.counts / (variance * self.counts + 1)
        spread = 1 + variance * (1 - gain)
        posterior = content + gain[:, None] * (self.means - content)
        lengths = np.linalg.norm(self.means, axis=1) + 1e-300

        def judged(point: Doubles) -> tuple[Doubles, float]:
            u = self.whitening(point[None])[0]
            scores = -((u - posterior) ** 2).sum(1) / (self.whitening.within_trace * spread) - np.log(spread)
            first = int(scores.argmax())
            return scores, float(self.means[first] @ u / lengths[first] / (np.linalg.norm(u) + 1e-300))

        rows = [judged(point) for point in points.reshape(-1, points.shape[2])]
        shape = points.shape[:2]
        return Scores(np.stack([s for s, _ in rows]).reshape(*shape, -1), np.array([c for _, c in rows]).reshape(shape))


@dataclass(frozen=True, slots=True)
class Sources:
    """Pictures of C sources: scaled features (n, d), the source (n,) of each, and its group (n,): what is left out with it."""

    constants: Constants
    x: Doubles
    source: Integers
    group: Integers

    def folds(self) -> Integers:
        """(n,) fold of each picture, 0 … FOLDS − 1: whole groups, the largest first, each into the fold that has fewest pictures."""
        groups, first, sizes = np.unique(self.group, return_index=True, return_counts=True)
        filled, fold_of = np.zeros(FOLDS), {}
        for i in np.lexsort((first, -sizes)):
            fold_of[int(groups[i])] = fold = int(filled.argmin())
            filled[fold] += sizes[i]
        return np.array([fold_of[int(group)] for group in self.group], np.int64)

    def without(self, left_out: Booleans) -> SourceModel:
        """The model of the other pictures; ValueError if a source has no other."""
        source = self.source[~left_out]
        if len(np.unique(source)) < self.count:
            raise ValueError("a source has no other picture")
        return SourceModel.of(self.constants, self.x[~left_out], source)

    @property
    def count(self) -> int:
        """C"""
        return int(self.source.max()) + 1

    def calibration(self) -> Calibration:
        """Measured on each picture, judged without its fold, and on the pictures of each source, judged by the others alone.

        UNCALIBRATED, with the reason as its source, if there are too few pictures or a single source.
        """
        fewest, folds = int(np.bincount(self.source).min()), self.folds()
        if self.count < 2:
            return _none("a single source")
        if fewest < LEAST_PICTURES:
            return _none(f"{fewest} pictures of a source; calibration takes {LEAST_PICTURES}")
        if any(len(np.unique(self.source[folds != fold])) < self.count for fold in np.unique(folds)):
            return _none("all pictures of a source are of one prompt; calibration takes several")
        scores, consistency = np.zeros((len(self.x), self.count)), np.zeros(len(self.x))
        for fold in np.unique(folds):
            judged = self.without(folds == fold)(self.x[folds == fold][:, None])
            scores[folds == fold], consistency[folds == fold] = judged.scores[:, 0], judged.consistency[:, 0]
        point = fit_point(1, 0, scores, consistency, self.source)
        strangers = list(self._strangers(folds))
        reached = np.concatenate([c for _, c in strangers])
        if self.count > 2:
            likely = np.concatenate([[probabilities(row, point.temperature).max() for row in s] for s, _ in strangers])
            threshold = _above(np.where(likely >= point.attributed_from, reached, NO_THRESHOLD))
        else:  # a stranger is judged by a single source, and two show little of what else there is
            threshold = max(_above(reached), float(np.quantile(consistency, TYPICAL)))
        text = f"{len(self.x)} pictures of {self.count} sources, each judged without those of like content, and by the other sources alone"
        fitted = CalibrationPoint(1, 0, point.temperature, point.unknown_below, point.attributed_from, threshold)
        return Calibration((fitted,), text)

    def _strangers(self, folds: Integers) -> Iterator[tuple[Doubles, Doubles]]:
        """Scores and consistencies of the pictures of withheld sources by the others, without their fold."""
        withheld = np.arange(self.count) % min(WITHHELD, self.count)
        for group in range(int(withheld.max()) + 1):
            outside = withheld[self.source] == group
            for fold in np.unique(folds[outside]):
                known = ~outside & (folds != fold)
                source = np.unique(self.source[known], return_inverse=True)[1]
                judged = SourceModel.of(self.constants, self.x[known], source)(self.x[outside & (folds == fold)][:, None])
                yield judged.scores[:, 0], judged.consistency[:, 0]


def content_groups(x: Doubles, source: Integers) -> Integers:
    """(n,) group of each picture by what it shows: x (n, d) less the mean of its source, divided until a group has few pictures.

    The largest group is divided at the mean along its principal direction (PDDP: Boley, Data Mining and Knowledge Discovery
    1998), so near copies stay together.
    """
    means = np.stack([x[source == c].mean(0) for c in range(int(source.max()) + 1)])
    y, group = x - means[source], np.zeros(len(x), np.int64)
    most = max(2, len(x) // (4 * FOLDS))
    while (sizes := np.bincount(group)).max() > most:
        rows = np.flatnonzero(group == sizes.argmax())
        centred = y[rows] - y[rows].mean(0)
        side = np.linalg.eigh(centred @ centred.T)[1][:, -1] > 0
        if not centred.any() or side.all() or not side.any():  # equal pictures
            break
        group[rows[side if side[0] else ~side]] = group.max() + 1
    return group


def _above(consistency: Doubles) -> float:
    """The least consistency that at most NAMED_STRANGERS of these strangers, and of one more that is counted as named, reach."""
    allowed = math.floor(NAMED_STRANGERS * (len(consistency) + 1) + 1e-9) - 1
    ordered = np.sort(consistency)[::-1]
    if allowed < 0:
        return NEVER
    return NO_THRESHOLD if len(ordered) <= allowed else float(np.nextafter(ordered[allowed], NEVER))


def _none(reason: str) -> Calibration:
    return Calibration(UNCALIBRATED.points, f"none: {reason}", measured=False)


def most_of_each(sizes: Sequence[int]) -> int:
    """How many pictures of a source are used, at most, so that all together are MOST_PICTURES, or LEAST_PICTURES of each."""
    return max(LEAST_PICTURES, MOST_PICTURES // max(1, len(sizes)))
