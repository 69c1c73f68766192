"""The nearest rows of a gallery, for each group of rows. The public functions of the topk kernel."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from .. import kernels
from ..types import Doubles, Integers
from .twins import topk as twin
from .twins.topk import Rows, TopK

_FLOAT, _INT = np.dtype(np.float32), np.dtype(np.int64)

__all__ = ["DEVICE_K", "Rows", "TopK", "nearest_rows", "ranked_again", "topk"]

DEVICE_K = 128
"""The largest k of the CUDA kernel."""

_PAIRS = 1024  # pairs of query and row that are rescored at a time in float64, so that they stay in the cache


def topk(
    queries: NDArray[np.float32],
    blocks: Rows | Sequence[Rows],
    k: int,
    *,
    offsets: NDArray[np.float32] | None = None,
    weights: NDArray[np.float32] | None = None,
    groups: NDArray[np.int32] | None = None,
    group_count: int = 1,
) -> TopK:
    """The k rows with the highest scores, for each query and each group of rows; a lower index first on a tie.

        score = (query · row + offset of the query) · weight of the row

    With an offset and the inverse norms as weights this is a cosine between shifted and scaled vectors, whose shift and
    scale are folded into the query: the rows are read as they are stored.

    One pass over the gallery for every 64 queries, on the calling thread, other Python threads running; nothing is
    copied, so the blocks may be memory-mapped files larger than memory. A query's scores do not depend on the other
    queries, bit for bit.

    Args:
        queries: (Q, d) float32, Q and d at least 1.
        blocks: the gallery (N, d), float32 or float16, or 1 to 64 arrays (N, columns) of its columns. float16 takes half
            the memory, and so about half the time; its rounding moves a cosine by about 1e-4.
        k: at least 1.
        offsets: (Q,) float32, default 0.
        weights: (N,) float32, default 1.
        groups: (N,) int32, each below `group_count`; a row with a negative one is left out, whatever it holds. Without
            `groups` every row is in group 0.
        group_count: G, at least 1.

    Returns:
        Scores and indices, (Q, G, min(k, N)) each; -inf and -1 where a group has fewer rows.

    Raises:
        TypeError: an argument is not a C-contiguous NumPy array of its dtype and dimensions; nothing is converted.
        ValueError: shapes do not fit together, k or a group is not allowed, a value is not finite, or a score exceeds
            float32.
    """
    blocks = [blocks] if isinstance(blocks, np.ndarray) else blocks
    if not kernels.compiled():
        return twin.topk(queries, blocks, k, offsets=offsets, weights=weights, groups=groups, group_count=group_count)
    try:
        k = operator.index(k)
        if k < 1:
            raise ValueError(f"k is {k}; it must be at least 1")
        if group_count < 1:
            raise ValueError(f"group_count is {group_count}; it must be at least 1")
        shape = len(queries), group_count, min(k, len(blocks[0]) if blocks else k)
        scores, indices = np.empty(shape, _FLOAT), np.empty(shape, _INT)
        kernels.native.topk(queries, blocks, offsets, weights, groups, scores, indices)
    except TypeError:  # nanobind's message lists every argument; this check names the wrong one
        twin.check_topk(queries, blocks, k, offsets, weights, groups, group_count)
        raise
    return TopK(scores, indices)


def ranked_again(
    result: TopK, exact: Callable[[Integers, Integers], Doubles], count: int, slack: Doubles | None = None
) -> tuple[Integers, Doubles]:
    """Rank the rows of a `topk` result by exact scores and return the best `count`.

    float32 rounding may swap neighbours, so `topk` should be called with a larger k than `count`.

    Args:
        result: rows for Q queries and G groups.
        exact: (n,) queries and (n,) rows → (n,) scores.
        count: rows of each group.
        slack: (Q, G, k), largest error of each score in `result`. Rows that are too low by more than that are not rescored.

    Returns:
        Rows and exact scores, (Q, G, count) each, the lower row first on a tie; -1 and -inf where a group has fewer.
    """
    queries, groups, k = result.scores.shape
    count = min(count, k)
    rows, scores = np.full((queries, groups, count), -1), np.full((queries, groups, count), -np.inf)
    if not count:
        return rows, scores
    possible = result.indices >= 0
    if slack is not None:
        certain = -np.partition(slack - result.scores, count - 1, axis=2)[:, :, count - 1 : count]
        possible &= result.scores + slack >= certain
    query, group, at = np.nonzero(possible)
    row = result.indices[query, group, at]
    score = np.empty(len(row))
    for start in range(0, len(row), _PAIRS):
        some = slice(start, start + _PAIRS)
        score[some] = exact(query[some], row[some])
    order = np.lexsort((row, -score, group, query))
    cell = (query * groups + group)[order]
    place = np.arange(len(order)) - np.searchsorted(cell, cell)  # among those of one query and group
    order, place = order[place < count], place[place < count]
    rows[query[order], group[order], place], scores[query[order], group[order], place] = row[order], score[order]
    return rows, scores


def nearest_rows(queries: Doubles, rows: Doubles, count: int, *, groups: NDArray[np.int32] | None = None, group_count: int = 1) -> Integers:
    """The `count` rows (N, d) with the highest inner product with each of `queries` (Q, d), ranked in float64.

    Returns:
        Rows, (Q, G, count), or (Q, G, N) if N is smaller; -1 where a group has fewer. Groups are those of `topk`.
    """
    result = topk(queries.astype(np.float32), rows.astype(np.float32), 2 * count + 16, groups=groups, group_count=group_count)
    return ranked_again(result, lambda query, row: (queries[query] * rows[row]).sum(1), count)[0]
