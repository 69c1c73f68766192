"""Twin of the topk kernel."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...types import Floats, Integers
from .checks import check_array

Rows = Floats | NDArray[np.float16]
"""(N, columns), some columns of a gallery as they are stored."""


class TopK(NamedTuple):
    """The nearest rows of a gallery for Q queries, of each of G groups of rows."""

    scores: Floats
    """(Q, G, k), the highest first; -inf where a group has fewer rows."""
    indices: Integers
    """(Q, G, k), the rows with these scores, the lower index first on a tie; -1 where a group has fewer rows."""


def topk(
    queries: Floats,
    blocks: Sequence[Rows],
    k: int,
    *,
    offsets: Floats | None = None,
    weights: Floats | None = None,
    groups: NDArray[np.int32] | None = None,
    group_count: int = 1,
) -> TopK:
    """See :func:`resynth_fast.kernels.topk.topk`."""
    check_topk(queries, blocks, k, offsets, weights, groups, group_count)
    count = len(blocks[0])
    groups = np.zeros(count, np.int32) if groups is None else groups
    offsets = np.zeros(len(queries), np.float32) if offsets is None else offsets
    weights = np.ones(count, np.float32) if weights is None else weights
    k = min(k, count)
    scores, indices = np.full((len(queries), group_count, k), -np.inf, np.float32), np.full((len(queries), group_count, k), -1)
    for group in range(group_count):
        rows = np.flatnonzero(groups == group)
        gallery = np.concatenate([block[rows].astype(np.float64) for block in blocks], axis=1)
        exact = (queries.astype(np.float64) @ gallery.T + offsets[:, None].astype(np.float64)) * weights[rows].astype(np.float64)
        with np.errstate(over="ignore"):
            rounded = exact.astype(np.float32)
        for q, n in np.argwhere(~np.isfinite(rounded)):
            raise ValueError(f"queries: row {q} and gallery: row {rows[n]} have a score beyond float32; scale one of them")
        order = np.argsort(-rounded, axis=1, kind="stable")[:, :k]
        scores[:, group, : order.shape[1]] = np.take_along_axis(rounded, order, axis=1)
        indices[:, group, : order.shape[1]] = rows[order]
    return TopK(scores, indices)


def check_topk(
    queries: Floats,
    blocks: Sequence[Rows],
    k: int,
    offsets: Floats | None,
    weights: Floats | None,
    groups: NDArray[np.int32] | None,
    group_count: int,
) -> None:
    """Raise TypeError or ValueError, naming the argument, its value and what is allowed, unless they fit together."""
    check_array("queries", queries, np.float32, 2)
    for b, block in enumerate(blocks):
        half = getattr(block, "dtype", None) == np.float16 == blocks[0].dtype
        check_array(f"blocks[{b}]", block, np.float16 if half else np.float32, 2)
    for name, array, dtype in (("offsets", offsets, np.float32), ("weights", weights, np.float32), ("groups", groups, np.int32)):
        if array is not None:
            check_array(name, array, dtype, 1)
    if not isinstance(k, int | np.integer):
        raise TypeError(f"k is a {type(k).__name__}; it must be an int")
    if k < 1:
        raise ValueError(f"k is {k}; it must be at least 1")
    if group_count < 1:
        raise ValueError(f"group_count is {group_count}; it must be at least 1")
    if min(queries.shape) < 1:
        raise ValueError(f"queries has shape {queries.shape}; it must have at least one row and one column")
    if not 1 <= len(blocks) <= 64:
        raise ValueError(f"blocks has {len(blocks)} arrays; it must have 1 to 64")
    for b, block in enumerate(blocks):
        if len(block) != len(blocks[0]) or block.shape[1] < 1:
            raise ValueError(
                f"blocks[{b}] has shape {block.shape}; it must have {len(blocks[0])} rows, as blocks[0] has, and at least one column"
            )
    if (columns := sum(block.shape[1] for block in blocks)) != queries.shape[1]:
        raise ValueError(f"blocks has {columns} columns in all; it must have {queries.shape[1]}, as queries has")
    for name, array, length in (
        ("offsets", offsets, len(queries)),
        ("weights", weights, len(blocks[0])),
        ("groups", groups, len(blocks[0])),
    ):
        if array is not None and len(array) != length:
            raise ValueError(f"{name} has length {len(array)}; it must have {length}")
    if groups is not None and len(high := np.flatnonzero(groups >= group_count)):
        raise ValueError(f"groups[{high[0]}] is {groups[high[0]]}; it must be below {group_count}, the number of groups")
    counted = np.arange(len(blocks[0])) if groups is None else np.flatnonzero(groups >= 0)
    for name, rows in (("queries", queries), *(("gallery", block) for block in blocks)):
        among = np.arange(len(rows)) if name == "queries" else counted
        if len(bad := among[~np.isfinite(rows[among]).all(axis=1)]):
            raise ValueError(f"{name}: row {bad[0]} is not finite; every value must be")
    for name, values, among in (("offsets", offsets, np.arange(len(queries))), ("weights", weights, counted)):
        if values is not None and len(bad := among[~np.isfinite(values[among])]):
            raise ValueError(f"{name}[{bad[0]}] is not finite; every value must be")
