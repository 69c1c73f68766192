"""References whose content is like the probe's, found without labels: the nearest in chosen blocks, of each generator.

Cosine between scaled features (mean and scale of the extractor). Scaling is folded into the query, so that the scan is
one product of the mapped rows with one vector; the best few are then ranked again in float64, so that neither the
order of the rows nor their number changes the answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..arrays import Doubles
from ..errors import BundleError, ConfigError
from .entry import StoredEntry
from .index import Facts
from .layout import Layout

_CHUNK = 1024  # rows of float16 that are widened at a time: they stay in the cache
_TINY = np.float32(1e-30)


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A reference, and its cosine with the query."""

    entry: StoredEntry
    similarity: float


def scan(
    layout: Layout,
    blocks: Mapping[str, npt.NDArray[Any]],
    facts: Facts,
    query: npt.NDArray[np.float32],
    per_generator: int,
    eligible: npt.NDArray[np.bool_] | None,
) -> list[tuple[int, float]]:
    """(row, cosine) of the nearest `per_generator` rows of every generator, the nearest first.

    `blocks`: name → (rows, columns) as stored; `query` (d,), unscaled; `eligible` (rows,) narrows the rows that count.
    """
    columns = layout.column_of(list(blocks))
    if query.shape != (layout.dimension,) or not np.isfinite(query).all():
        raise ConfigError(f"the query has shape {query.shape}; it must be ({layout.dimension},), all finite")
    generator = facts.generator if eligible is None else np.where(eligible, facts.generator, -1)
    closeness = _closeness(layout, blocks, facts, query)
    if not np.isfinite(closeness[generator >= 0]).all():
        raise BundleError("a stored feature is not finite; run `resynth gallery prune`")
    found: list[tuple[int, float]] = []
    for identity in facts.names:
        rows = np.flatnonzero(generator == identity)
        if not len(rows):
            continue
        few = _best(closeness[rows], 2 * per_generator + 16)  # room for what float32 misjudges
        rows = np.sort(rows[few])
        exact = _cosines(layout, {name: blocks[name][rows] for name in columns}, query)
        order = np.argsort(-exact, kind="stable")[:per_generator]
        found += [(int(rows[i]), float(exact[i])) for i in order]
    return found


def _closeness(
    layout: Layout, blocks: Mapping[str, npt.NDArray[Any]], facts: Facts, query: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """(rows,) proportional to the cosine, in float32."""
    names = list(layout.blocks)
    dots: npt.NDArray[np.float32] | None = None
    squares = np.zeros(len(facts.norms), np.float32)
    for name, block in layout.column_of(list(blocks)).items():
        weights = (query[block] - layout.mean[block]) / layout.scale[block] ** 2
        product = _product(blocks[name], weights.astype(np.float32))
        product -= np.float32(layout.mean[block] @ weights)
        dots = product if dots is None else np.add(dots, product, out=dots)
        squares += facts.norms[:, names.index(name)] ** 2
    assert dots is not None
    closeness: npt.NDArray[np.float32] = dots / np.sqrt(squares + _TINY)
    return closeness


def _product(rows: npt.NDArray[Any], weights: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    if rows.dtype == np.float32:
        product: npt.NDArray[np.float32] = rows @ weights
        return product
    product = np.empty(len(rows), np.float32)
    for start in range(0, len(rows), _CHUNK):
        chunk = slice(start, start + _CHUNK)
        np.matmul(rows[chunk].astype(np.float32), weights, out=product[chunk])
    return product


def _best(values: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.intp]:
    return np.argpartition(-values, count)[:count] if len(values) > count else np.arange(len(values))


def _cosines(layout: Layout, blocks: Mapping[str, npt.NDArray[Any]], query: npt.NDArray[np.float32]) -> Doubles:
    """(n,) exact, each row by itself; 0 where one of the two is the mean itself."""
    columns = layout.column_of(list(blocks))

    def scaled(values: npt.NDArray[Any], block: slice) -> Doubles:
        result: Doubles = (values.astype(np.float64) - layout.mean[block]) / layout.scale[block]
        return result

    x = np.concatenate([scaled(blocks[name], block) for name, block in columns.items()], axis=1)
    q = np.concatenate([scaled(query[block], block) for block in columns.values()])
    lengths = np.sqrt((x * x).sum(1) * (q * q).sum())
    dots = (x * q).sum(1)
    cosines: Doubles = np.divide(dots, lengths, out=np.zeros_like(dots), where=lengths > 0)
    return cosines


def by_generator(found: Sequence[tuple[int, float]], entries: Mapping[int, StoredEntry]) -> dict[str, tuple[Neighbour, ...]]:
    """The result of `scan` with names."""
    grouped: dict[str, list[Neighbour]] = {}
    for row, similarity in found:
        grouped.setdefault(entries[row].generator, []).append(Neighbour(entries[row], similarity))
    return {name: tuple(neighbours) for name, neighbours in sorted(grouped.items())}
