"""Float64 NumPy twins of the compiled kernels: the arbiter of their tests, and the fallback where none is built.

Each takes the arguments of its kernel, checks them with the same words, and is written to be read, not to be fast.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..arrays import Doubles, Floats, Integers

Reduce = Literal["max", "mean"]
Rows = Floats | NDArray[np.float16]
"""(N, columns), how a gallery may be stored."""


class Similarity(NamedTuple):
    """Scores and ranking of P probes over C candidates."""

    scores: Floats
    """(P, C), in [-1, 1]; -inf for a candidate without references."""
    best: Integers
    """(P,), the candidate with the highest score, the lowest index on a tie; -1 for a probe without any reference."""
    margin: Floats
    """(P,), best score minus the next; +inf where no other candidate has references; 0 where `best` is -1."""


def similarity(probes: Floats, references: Floats, offsets: Integers, *, reduce: Reduce = "max") -> Similarity:
    """See :func:`resynth_fast.kernels.similarity.similarity`."""
    check_similarity(probes, references, offsets, reduce)
    count = len(probes)
    candidates = (len(offsets) - 1) // count
    scores = np.full(count * candidates, -np.inf)
    for group, (begin, end) in enumerate(pairwise(offsets)):
        if begin < end:
            cosines = _cosines(probes[group // candidates], references[begin:end])
            scores[group] = cosines.max() if reduce == "max" else cosines.mean()
    return _rank(scores.reshape(count, candidates).astype(np.float32))


def _cosines(probe: Floats, references: Floats) -> Doubles:
    """(d,), (k, d) → (k,); 0 where either vector is zero. Squares of any float32 fit into a float64."""
    x, y = probe.astype(np.float64), references.astype(np.float64)
    norms = np.linalg.norm(x) * np.linalg.norm(y, axis=1)
    cosines: Doubles = np.divide((y * x).sum(axis=1), norms, out=np.zeros(len(y)), where=norms > 0)
    return cosines.clip(-1.0, 1.0)


def _rank(scores: Floats) -> Similarity:
    best = scores.argmax(axis=1)
    first = scores[np.arange(len(scores)), best]
    others = scores.copy()
    others[np.arange(len(scores)), best] = -np.inf
    scored = first > -np.inf
    margin = np.subtract(first, others.max(axis=1), out=np.zeros_like(first), where=scored)
    return Similarity(scores, np.where(scored, best, -1), margin)


def check_similarity(probes: Floats, references: Floats, offsets: Integers, reduce: str) -> None:
    """Raise TypeError or ValueError, naming the argument, its value and what is allowed, unless they fit together."""
    for name, array, dtype, ndim in (
        ("probes", probes, np.float32, 2),
        ("references", references, np.float32, 2),
        ("offsets", offsets, np.int64, 1),
    ):
        _check_array(name, array, dtype, ndim)
    (rows, dimension), groups = probes.shape, len(offsets) - 1
    if rows < 1 or dimension < 1:
        raise ValueError(f"probes has shape {probes.shape}; it must have at least one row and one column")
    if references.shape[1] != dimension:
        raise ValueError(f"references has {references.shape[1]} columns; it must have {dimension}, as probes has")
    if groups < 1 or groups % rows:
        raise ValueError(f"offsets has length {groups + 1}; it must be probes * candidates + 1, with {rows} probes")
    if reduce not in ("max", "mean"):
        raise ValueError(f"reduce is '{reduce}'; it must be 'max' or 'mean'")
    _check_offsets(offsets, len(references))
    for name, array in (("probes", probes), ("references", references)):
        if len(bad := np.flatnonzero(~np.isfinite(array).all(axis=1))):
            raise ValueError(f"{name}: row {bad[0]} is not finite; every value must be")


class GalleryPrior(NamedTuple):
    """What a gallery expects of C candidates: one prior for each probe (G = P), or one for all probes (G = 1)."""

    means: Doubles | None
    """(G, C, d) whitened mean picture of each candidate, content removed; None: zero."""
    weights: Doubles
    """(G, C), how far a mean is trusted, 0 … 1."""
    spreads: Doubles
    """(G, C), variance of a candidate's pictures of one prompt about what is expected, in units of that within a cell."""
    unknown: Doubles
    """(G,), variance of the mean of a generator that no gallery knows; 0 where consistency is not compared with one."""


class Scores(NamedTuple):
    """How P probes, of n points each, are judged by C candidates."""

    scores: Doubles
    """(P, n, C), log-likelihoods but for a constant: higher is closer."""
    consistency: Doubles
    """(P, n), low for a picture that no candidate makes; NaN for a probe without references."""


def score(
    points: Doubles,
    references: Doubles,
    rows: Integers,
    offsets: Integers,
    prior: GalleryPrior,
    energy: float,
    *,
    content: Doubles | None = None,
) -> Scores:
    """See :func:`resynth_fast.kernels.similarity.score`."""
    candidates = (len(offsets) - 1) // len(points)
    result = Scores(np.empty((*points.shape[:2], candidates)), np.empty(points.shape[:2]))
    for p, own in enumerate(points):
        groups = [references[rows[begin:end]] for begin, end in pairwise(offsets[p * candidates : (p + 1) * candidates + 1])]
        g = p if len(prior.unknown) > 1 else 0
        expected = np.zeros((candidates, points.shape[2])) if prior.means is None else prior.means[g]
        known = GalleryPrior(expected, prior.weights[g], prior.spreads[g], prior.unknown[g])
        for j, point in enumerate(own):
            given = None if content is None else content[p]
            result.scores[p, j] = _log_likelihoods(point, groups, known, energy, _content(groups) if given is None else given)
            result.consistency[p, j] = _consistency(point, groups)
            if known.unknown > 0 and given is None:
                result.consistency[p, j] += _advantage(point, groups, known, energy, result.scores[p, j])
    return result


Groups = Sequence[Doubles]
"""C arrays (K, d): each candidate's references of one probe."""


def _content(groups: Groups) -> Doubles:
    """What the pictures show, whoever made them: the mean over candidates of their mean references, (d,)."""
    content: Doubles = np.mean([r.mean(0) for r in groups if len(r)], axis=0)
    return content


def _log_likelihoods(point: Doubles, groups: Groups, known: GalleryPrior, energy: float, content: Doubles) -> Doubles:
    """−|q − posterior|² / (energy · variance) − log variance, (C,)."""
    assert known.means is not None  # `score` puts zeros there
    centre = known.weights[:, None] * known.means
    centre = content + centre - centre.mean(0)
    counts = np.array([len(r) for r in groups], np.float64)
    gain = known.spreads * counts / (known.spreads * counts + 1)  # spread / (spread + 1 / K)
    means = np.stack([r.mean(0) if len(r) else c for r, c in zip(groups, centre, strict=True)])
    posterior = centre + gain[:, None] * (means - centre)
    variance = 1 + known.spreads * (1 - gain)
    values: Doubles = -((point - posterior) ** 2).sum(1) / (energy * variance) - np.log(variance)
    return values


def _consistency(point: Doubles, groups: Groups) -> float:
    """The highest cosine with a mean reference, less half of what the references have in common among themselves."""
    present = [r for r in groups if len(r)]
    if not present:
        return float("nan")
    highest = float(np.max([_cosine(r.mean(0), point) for r in present]))
    common = [_cosine(r.sum(0) - own, own) for r in present if len(r) > 1 for own in r]
    return highest - 0.5 * float(np.mean(common)) if common else highest


def _advantage(point: Doubles, groups: Groups, known: GalleryPrior, energy: float, scores: Doubles) -> float:
    """Twice how much better the best candidate explains the point than an unknown generator would."""
    variance = 1 + known.unknown
    background = -((point - _content(groups)) ** 2).sum() / (energy * variance) - np.log(variance)
    return float(scores.max() - 0.75 * background)


def _cosine(x: Doubles, y: Doubles) -> float:
    return float(x @ y / (np.linalg.norm(x) * np.linalg.norm(y) + 1e-300))


def philox(seeds: NDArray[np.uint64], counters: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Philox-4x32-10 of counters (n, 4), each below 2³², under the 64-bit keys `seeds` (n,); returns (n, 4), each below 2³²."""
    low, shift = np.uint64(0xFFFFFFFF), np.uint64(32)
    key0, key1 = seeds & low, seeds >> shift
    c0, c1, c2, c3 = counters.T
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
        c0, c1, c2, c3 = (p1 >> shift) ^ c1 ^ key0, p1 & low, (p0 >> shift) ^ c3 ^ key1, p0 & low
        key0, key1 = (key0 + np.uint64(0x9E3779B9)) & low, (key1 + np.uint64(0xBB67AE85)) & low
    return np.stack([c0, c1, c2, c3], axis=1)


def noise(seeds: NDArray[np.uint64], calls: NDArray[np.uint32], out: Floats) -> None:
    """Fill each row of `out` (b, n) with the normals of its seed and call; see :mod:`resynth_fast.kernels.noise`."""
    blocks = (out.shape[1] + 3) // 4
    counters = np.zeros((len(out), blocks, 4), np.uint64)
    counters[:, :, 0] = np.arange(blocks)
    counters[:, :, 1] = calls[:, None]
    words = philox(seeds.repeat(blocks), counters.reshape(-1, 4)).astype(np.float64)
    radius = np.sqrt(-2 * np.log((words[:, 0::2] + 1) / 2**32))  # (0, 1]: the logarithm never sees zero
    angle = 2 * np.pi * words[:, 1::2] / 2**32
    normals = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=2)
    out[:] = normals.reshape(len(out), -1)[:, : out.shape[1]]


HISTORY = 4


def step(
    weights: Floats,
    samples: Sequence[Floats],
    outputs: Sequence[Floats],
    *,
    out: Floats,
    unconditional: Floats | None = None,
    noise: Floats | None = None,
    guided: Floats | None = None,
    scaled: Floats | None = None,
) -> None:
    """See :func:`resynth_fast.kernels.step.step`."""
    check_step(weights, samples, outputs, out=out, unconditional=unconditional, noise=noise, guided=guided, scaled=scaled)
    with np.errstate(over="ignore", invalid="ignore"):  # infinities and NaN go their way, as in the kernel
        for r, row in enumerate(weights.astype(np.float64)):
            output = outputs[0][r].astype(np.float64)
            if unconditional is not None:
                output = unconditional[r] + row[2 * HISTORY + 1] * (output - unconditional[r])
            terms = [output, *(array[r] for array in (*samples, *outputs[1:])), *([] if noise is None else [noise[r]])]
            factors = [row[HISTORY], *row[: len(samples)], *row[HISTORY + 1 : HISTORY + len(outputs)], row[2 * HISTORY]]
            x = sum((factor * term for factor, term in zip(factors, terms, strict=False) if factor), np.zeros(out.shape[1:]))
            for to, value in ((out, x), (guided, output), (scaled, x * row[2 * HISTORY + 2])):
                if to is not None:
                    to[r] = value


def check_step(
    weights: Floats,
    samples: Sequence[Floats],
    outputs: Sequence[Floats],
    *,
    out: Floats,
    unconditional: Floats | None,
    noise: Floats | None,
    guided: Floats | None,
    scaled: Floats | None,
) -> None:
    """Raise TypeError or ValueError, naming the argument, its value and what is allowed, unless they fit together."""
    _check_array("weights", weights, np.float32, 2)
    for name, arrays in (("samples", samples), ("outputs", outputs)):
        if not isinstance(arrays, Sequence):
            raise TypeError(f"{name} is a {type(arrays).__name__}; it must be a list of arrays")
        if not 1 <= len(arrays) <= HISTORY:
            raise ValueError(f"{name} has {len(arrays)} arrays; it must have 1 to {HISTORY}")
    read = {f"samples[{i}]": array for i, array in enumerate(samples)} | {f"outputs[{j}]": array for j, array in enumerate(outputs)}
    read |= {name: array for name, array in (("unconditional", unconditional), ("noise", noise)) if array is not None}
    written = {name: array for name, array in (("out", out), ("guided", guided), ("scaled", scaled)) if array is not None}
    for name, array in (written | read).items():
        _check_array(name, array, np.float32, max(np.ndim(out), 1))
        if name in written and not array.flags.writeable:
            raise TypeError(f"{name} is read-only; it is written to")
        if array.shape != out.shape:
            raise ValueError(f"{name} has shape {array.shape}; it must have {out.shape}, as out has")
    if weights.shape != (len(out), 2 * HISTORY + 3):
        raise ValueError(f"weights has shape {weights.shape}; it must have ({len(out)}, {2 * HISTORY + 3})")
    _check_overlap(read, written)
    there = [i < len(samples) for i in range(HISTORY)] + [j < len(outputs) for j in range(HISTORY)] + [noise is not None]
    names = [f"{kind}[{i}]" for kind in ("samples", "outputs") for i in range(HISTORY)] + ["noise"]
    for r, row in enumerate(weights):
        for column, name in enumerate(names):
            if row[column] != 0 and not there[column]:
                raise ValueError(f"weights[{r}, {column}] is {row[column]:g}, but there is no {name} that it could weight")


def _check_overlap(read: dict[str, Floats], written: dict[str, Floats]) -> None:
    for name, array in written.items():
        for other, also in read.items():
            if np.may_share_memory(array, also) and array.ctypes.data != also.ctypes.data:
                raise ValueError(f"{name} overlaps {other}; it must be the same array or share no memory with it")
        for other, also in written.items():
            if name != other and np.may_share_memory(array, also):
                raise ValueError(f"{name} overlaps {other}; both are written and must not share memory")


def _check_array(name: str, array: object, dtype: type[np.generic], ndim: int) -> None:
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{name} is a {type(array).__name__}; it must be a numpy.ndarray")
    if array.dtype != dtype or array.ndim != ndim or not array.flags.c_contiguous:
        order = "C-contiguous" if array.flags.c_contiguous else "strided"
        raise TypeError(
            f"{name} is a {order} {array.ndim}-D {array.dtype} array; it must be a C-contiguous {ndim}-D {np.dtype(dtype)} array"
        )


def _check_offsets(offsets: Integers, count: int) -> None:
    if offsets[0] != 0:
        raise ValueError(f"offsets[0] is {offsets[0]}; it must be 0")
    if len(falls := np.flatnonzero(np.diff(offsets) < 0)):
        g = falls[0]
        raise ValueError(f"offsets[{g + 1}] is {offsets[g + 1]}; it must be at least offsets[{g}] = {offsets[g]}")
    if offsets[-1] != count:
        raise ValueError(f"offsets[{len(offsets) - 1}] is {offsets[-1]}; it must be {count}, the number of references")


class TopK(NamedTuple):
    """The nearest rows of a gallery for Q queries, of each of G groups of rows."""

    scores: Floats
    """(Q, G, k), the highest first; -inf where a group has fewer rows."""
    indices: Integers
    """(Q, G, k), the rows that have them, the lower index first on a tie; -1 where a group has fewer rows."""


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
            found = exact.astype(np.float32)
        for q, n in np.argwhere(~np.isfinite(found)):
            raise ValueError(f"queries: row {q} and gallery: row {rows[n]} have a score beyond float32; scale one of them")
        order = np.argsort(-found, axis=1, kind="stable")[:, :k]
        scores[:, group, : order.shape[1]] = np.take_along_axis(found, order, axis=1)
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
    _check_array("queries", queries, np.float32, 2)
    for b, block in enumerate(blocks):
        half = getattr(block, "dtype", None) == np.float16 == blocks[0].dtype
        _check_array(f"blocks[{b}]", block, np.float16 if half else np.float32, 2)
    for name, array, dtype in (("offsets", offsets, np.float32), ("weights", weights, np.float32), ("groups", groups, np.int32)):
        if array is not None:
            _check_array(name, array, dtype, 1)
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


def all_finite(values: Floats) -> bool:
    """See `finite.all_finite`."""
    return bool(np.isfinite(values).all())
