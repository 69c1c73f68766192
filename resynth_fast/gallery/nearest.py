"""Search for references of similar content, without labels: the nearest in chosen blocks, by generator.

References are compared by the cosine between scaled features (mean and scale of the extractor). The topk kernel scans the
rows as they are stored: shift and scale are folded into the queries, and the inverse lengths of the scaled rows, from the
index, are its weights. It returns a few rows more than requested, because float32 may confuse neighbours; their cosines in float64 decide.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..devices.base import CPU, Device
from ..errors import BundleError, ConfigError
from ..kernels.topk import DEVICE_K, TopK, ranked_again
from ..types import Array, Doubles, Floats, Integers
from .entry import StoredEntry
from .index import Facts
from .layout import Layout

Blocks = Mapping[str, npt.NDArray[Any]]
"""Name → (rows, columns) as stored."""
_QUERIES = 1024  # per call of the kernel: its result stays below 10 MB for a dozen generators
_ROUNDING = np.finfo(np.float32).eps


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A reference, and its cosine with the query."""

    entry: StoredEntry
    similarity: float


Matches = list[tuple[int, float]]
"""Rows of one query and their cosines: generator by generator, the nearest first."""


@dataclass(frozen=True, slots=True, eq=False)
class Search:
    """A search in some blocks, without the vectors; valid as long as `facts` is."""

    layout: Layout
    columns: Mapping[str, slice]
    facts: Facts
    generator: npt.NDArray[np.int32]
    """(rows,), -1 for a row without an entry."""
    weights: Floats
    """(rows,), 1 / length of the scaled row; 0 for the mean itself."""
    _uploaded: dict[Device[Any], tuple[list[Array], Array]] = field(default_factory=dict)

    @classmethod
    def of(cls, layout: Layout, names: Sequence[str], facts: Facts) -> Search:
        """ConfigError if there is no such block."""
        columns = layout.column_of(names)
        numbers = [list(layout.blocks).index(name) for name in columns]
        lengths = np.sqrt((facts.norms[:, numbers] ** 2).sum(1))
        weights = np.divide(1, lengths, out=np.zeros_like(lengths), where=lengths > 0)
        return cls(layout, columns, facts, facts.generator.astype(np.int32), weights)

    def __call__(
        self,
        blocks: Blocks,
        features: Floats,
        per_generator: int,
        among: Integers | None,
        device: Device[Any] = CPU,
    ) -> Iterator[Matches]:
        """For each of `features` (n, d), unscaled: the nearest `per_generator` rows of every generator, among the rows `among`."""
        if features.ndim != 2 or features.shape[1] != self.layout.dimension or not np.isfinite(features).all():
            raise ConfigError(f"queries have shape {features.shape}; they must be (n, {self.layout.dimension}), all finite")
        groups = self._groups(among)
        k = 2 * per_generator + 16  # room for the neighbours that float32 confuses
        device = device if k <= DEVICE_K and len(groups) else CPU
        for start in range(0, len(features), _QUERIES):
            queries = _Queries.of(self.layout, self.columns, features[start : start + _QUERIES])
            candidates = self._scan(blocks, queries, groups, k, device)
            yield from self._ranked(blocks, queries, candidates, per_generator)

    def _groups(self, among: Integers | None) -> npt.NDArray[np.int32]:
        if among is None:
            return self.generator
        if len(among) and not 0 <= among.min() <= among.max() < len(self.generator):
            raise ConfigError(f"rows go from {among.min()} to {among.max()}; this gallery has {len(self.generator)}")
        groups = np.full_like(self.generator, -1)
        groups[among] = self.generator[among]
        return groups

    def _scan(self, blocks: Blocks, queries: _Queries, groups: npt.NDArray[np.int32], k: int, device: Device[Any]) -> TopK:
        if device is not CPU and device not in self._uploaded:
            self._uploaded[device] = [device.to_device(np.asarray(blocks[name])) for name in self.columns], device.to_device(self.weights)
        rows, weights = self._uploaded[device] if device is not CPU else ([blocks[name] for name in self.columns], self.weights)
        count = 1 + max(self.facts.names, default=0)
        try:
            return device.topk(queries.folded, rows, k, offsets=queries.offsets, weights=weights, groups=groups, group_count=count)
        except ValueError as error:
            raise BundleError(f"a stored feature is not finite ({error}); run `resynth gallery prune`") from error

    def _ranked(self, blocks: Blocks, queries: _Queries, candidates: TopK, count: int) -> Iterator[Matches]:
        """The best `count` of each group by their cosines in float64."""
        slack = queries.unit_error[:, None, None] * self.weights[candidates.indices] + queries.error[:, None, None]
        all_rows, all_cosines = ranked_again(candidates, lambda query, row: self._cosines(blocks, row, queries.scaled[query]), count, slack)
        for rows, cosines in zip(all_rows, all_cosines, strict=True):
            valid = rows >= 0
            yield list(zip(rows[valid].tolist(), cosines[valid].tolist(), strict=True))

    def _cosines(self, blocks: Blocks, rows: Integers, scaled: Doubles) -> Doubles:
        """(n,) cosines of rows (n,) with their queries; 0 where one of the two is the mean itself."""
        x = np.concatenate([_scaled(self.layout, blocks[name][rows], block) for name, block in self.columns.items()], axis=1)
        lengths = np.sqrt((x * x).sum(1) * (scaled * scaled).sum(1))
        dots = (x * scaled).sum(1)
        cosines: Doubles = np.divide(dots, lengths, out=np.zeros_like(dots), where=lengths > 0)
        return cosines


@dataclass(frozen=True, slots=True, eq=False)
class _Queries:
    """n queries as the kernel takes them, for (x - mean) / scale · q = x · (q / scale) - mean · (q / scale)."""

    scaled: Doubles
    """(n, columns), q"""
    folded: Floats
    offsets: Floats
    unit_error: Doubles
    """(n,), float32 error that the mean adds for a row of weight 1, beside `error`."""
    error: Doubles
    """(n,), float32 error for any row."""

    @classmethod
    def of(cls, layout: Layout, columns: Mapping[str, slice], features: Floats) -> _Queries:
        scaled = np.concatenate([_scaled(layout, features[:, block], block) for block in columns.values()], axis=1)
        mean = np.concatenate([layout.mean[block] for block in columns.values()])
        folded = (scaled / np.concatenate([layout.scale[block] for block in columns.values()])).astype(np.float32)
        # A sum of d float32 products is wrong by at most d roundings of the sum of their absolute values, which is at most
        # |mean| · |folded| + |x scaled| |q|.
        roundings = (len(mean) + 8) * _ROUNDING
        return cls(
            scaled=scaled,
            folded=folded,
            offsets=-(folded.astype(np.float64) @ mean).astype(np.float32),
            unit_error=roundings * (np.abs(folded) @ np.abs(mean)),
            error=roundings * np.sqrt((scaled * scaled).sum(1)),
        )


def _scaled(layout: Layout, values: npt.NDArray[Any], block: slice) -> Doubles:
    result: Doubles = (values.astype(np.float64) - layout.mean[block]) / layout.scale[block]
    return result


def by_generator(matches: Matches, entries: Mapping[int, StoredEntry]) -> dict[str, tuple[Neighbour, ...]]:
    """The rows of one query by the names of their generators."""
    grouped: dict[str, list[Neighbour]] = {}
    for row, similarity in matches:
        grouped.setdefault(entries[row].generator, []).append(Neighbour(entries[row], similarity))
    return {name: tuple(neighbours) for name, neighbours in sorted(grouped.items())}
