"""The top-k kernel, in every form that this machine can run, against its float64 twin and its own promises."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from resynth_fast.kernels import isa
from resynth_fast.kernels.topk import Rows, TopK, nearest_rows, ranked_again, topk
from resynth_fast.kernels.twins import topk as twin

DIMENSIONS = (1, 7, 31, 33, 64, 65, 97, 768)
STORAGES = ("float32", "float16")
RTOL = 4e-6  # of a float32 sum, in units of the product of the norms

pytestmark = pytest.mark.usefixtures("every_isa")


@dataclass(frozen=True, kw_only=True)
class Problem:
    queries: NDArray[np.float32]
    blocks: list[Rows]
    k: int
    offsets: NDArray[np.float32] | None = None
    weights: NDArray[np.float32] | None = None
    groups: NDArray[np.int32] | None = None
    group_count: int = 1

    def __call__(self, of: Callable[..., TopK] = topk) -> TopK:
        options = {"offsets": self.offsets, "weights": self.weights, "groups": self.groups, "group_count": self.group_count}
        return of(self.queries, self.blocks, self.k, **options)

    def of_query(self, q: int) -> Problem:
        offsets = None if self.offsets is None else self.offsets[q : q + 1].copy()
        return replace(self, queries=self.queries[q : q + 1].copy(), offsets=offsets)


def make(
    seed: int,
    count: int,
    rows: int,
    dimension: int,
    k: int,
    storage: str = "float32",
    blocks: int = 1,
    groups: int = 1,
    scored: bool = False,
) -> Problem:
    """`groups` above 1: some rows are left out, and the last group may be empty; `scored`: with offsets and weights."""
    rng = np.random.default_rng(seed)
    gallery = rng.standard_normal((rows, dimension)).astype(storage)
    return Problem(
        queries=rng.standard_normal((count, dimension)).astype(np.float32),
        blocks=[part.copy() for part in np.array_split(gallery, min(blocks, dimension), axis=1)],
        k=k,
        offsets=rng.standard_normal(count).astype(np.float32) if scored else None,
        weights=rng.uniform(-1, 2, rows).astype(np.float32) if scored else None,
        groups=rng.integers(-1, groups, rows).astype(np.int32) if groups > 1 else None,
        group_count=groups,
    )


def assert_matches_twin(problem: Problem) -> None:
    got, want, everything = problem(), problem(twin.topk), replace(problem, k=10**6)(twin.topk)
    assert got.scores.shape == got.indices.shape == want.scores.shape
    norms = np.linalg.norm(problem.queries.astype(np.float64), axis=1) + (0 if problem.offsets is None else np.abs(problem.offsets))
    longest = np.sqrt(sum((block.astype(np.float64) ** 2).sum(1) for block in problem.blocks)).max(initial=1)
    weight = 1.0 if problem.weights is None else np.abs(problem.weights).max(initial=0)
    tolerance = RTOL * norms * longest * weight + 1e-44
    np.testing.assert_array_equal(got.indices < 0, want.indices < 0)
    for q in range(len(problem.queries)):
        for group in range(problem.group_count):
            scores, indices = (values[q, group][got.indices[q, group] >= 0] for values in got)
            assert (np.abs(scores.astype(np.float64) - want.scores[q, group, : len(scores)]) <= tolerance[q]).all()
            assert (got.scores[q, group, len(scores) :] == -np.inf).all()
            assert len(set(indices)) == len(indices)
            exact = dict(zip(everything.indices[q, group], everything.scores[q, group], strict=True))
            assert all(abs(float(score) - float(exact[n])) <= tolerance[q] for score, n in zip(scores, indices, strict=True))
            for n in range(1, len(scores)):  # the highest first, the lower index first on a tie
                assert scores[n - 1] > scores[n] or (scores[n - 1] == scores[n] and indices[n - 1] < indices[n])


problems = st.builds(
    make,
    st.integers(0, 2**32 - 1),
    st.sampled_from([1, 2, 3, 4, 7, 65]),
    st.sampled_from([0, 1, 7, 31, 48, 49, 97, 300]),
    st.sampled_from(DIMENSIONS),
    st.sampled_from([1, 2, 10, 31, 1000]),
    st.sampled_from(STORAGES),
    st.sampled_from([1, 2, 5]),
    st.sampled_from([1, 2, 9]),
    st.booleans(),
)


@given(problems)
def test_matches_the_twin(problem: Problem) -> None:
    assert_matches_twin(problem)


@given(problems)
def test_a_query_alone_gives_the_same_bits(problem: Problem) -> None:
    together = problem()
    for q in range(len(problem.queries)):
        alone = problem.of_query(q)()
        if isa() == "reference":  # NumPy's own matrix product promises less
            np.testing.assert_allclose(alone.scores[0], together.scores[q], rtol=1e-5, atol=1e-5)
        else:
            np.testing.assert_array_equal(alone.scores[0], together.scores[q])
            np.testing.assert_array_equal(alone.indices[0], together.indices[q])


@given(problems)
def test_a_group_alone_gives_the_same_bits(problem: Problem) -> None:
    together = problem()
    for group in range(problem.group_count):
        if problem.groups is None or isa() == "reference":
            return
        alone = replace(problem, groups=np.where(problem.groups == group, 0, -1).astype(np.int32), group_count=1)()
        np.testing.assert_array_equal(alone.scores[:, 0], together.scores[:, group])
        np.testing.assert_array_equal(alone.indices[:, 0], together.indices[:, group])


@pytest.mark.parametrize("storage", STORAGES)
def test_a_result_does_not_depend_on_memory_alignment(storage: str) -> None:
    """Shifted rows are summed from another vector boundary on, and must give the same bits."""
    problem = make(3, 5, 60, 768, 60, storage)
    [rows], want = problem.blocks, problem()
    for shift in (1, 2, 3, 4, 5, 8, 12, 15):
        buffer = np.empty(rows.size + 64, rows.dtype)
        shifted = buffer[shift : shift + rows.size].reshape(rows.shape)
        shifted[:] = rows
        got = replace(problem, blocks=[shifted])()
        np.testing.assert_array_equal(got.scores, want.scores)
        np.testing.assert_array_equal(got.indices, want.indices)


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("count", [1, 5])
def test_a_gallery_larger_than_the_cache_matches_the_twin(storage: str, count: int) -> None:
    """Rows that are fetched ahead, the last ones with nothing behind them."""
    problem = make(0, count, 16_411, 257, 9, storage, blocks=2, groups=3, scored=True)
    assert sum(block.nbytes for block in problem.blocks) > 8 << 20
    if isa() != "serial" or count == 1:  # one of the slow ones is enough
        assert_matches_twin(problem)


@pytest.mark.parametrize("k", [1, 3, 5, 100])
def test_ties_go_to_the_lowest_index(k: int) -> None:
    row, other = np.random.default_rng(0).standard_normal((2, 1, 33)).astype(np.float32)
    gallery = np.concatenate([-row, np.repeat(row, 60, axis=0), other - row, np.repeat(row, 30, axis=0)])
    result = topk(row, gallery, k)
    np.testing.assert_array_equal(result.indices[0, 0, : min(k, 90)], [*range(1, 61), *range(62, 92)][:k])


@pytest.mark.parametrize("k", [1, 3, 100])
def test_ties_go_to_the_lowest_index_of_each_group(k: int) -> None:
    row = np.random.default_rng(0).standard_normal((1, 33)).astype(np.float32)
    groups = (np.arange(90) % 3 - 1).astype(np.int32)
    result = topk(row, np.repeat(row, 90, axis=0), k, groups=groups, group_count=2)
    for group in range(2):
        np.testing.assert_array_equal(result.indices[0, group, : min(k, 30)], np.flatnonzero(groups == group)[:k])


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("order", [1, -1])
def test_rising_and_falling_galleries_match_the_twin(order: int, storage: str) -> None:
    """Every row enters the best, or none after the first do."""
    gallery = np.arange(200, dtype=storage)[::order, None].copy()
    scores, indices = (values[0, 0] for values in topk(np.ones((1, 1), np.float32), gallery, 50))
    np.testing.assert_array_equal(scores, np.arange(199, 149, -1))
    np.testing.assert_array_equal(indices, np.arange(200)[::order][scores.astype(int)])


def test_a_gallery_of_fewer_rows_than_k_gives_all() -> None:
    result = make(0, 2, 3, 7, 10)()
    assert result.scores.shape == (2, 1, 3)
    assert sorted(result.indices[0, 0]) == [0, 1, 2]
    assert make(0, 2, 0, 7, 10)().indices.shape == (2, 1, 0)


def test_a_shift_and_a_scale_are_folded_into_the_query() -> None:
    """The cosine of centred and scaled rows, from rows as they are."""
    rng = np.random.default_rng(0)
    mean, scale = 3 * rng.standard_normal(65), rng.uniform(0.2, 2, 65)
    rows = (mean + scale * rng.standard_normal((300, 65))).astype(np.float32)
    unit = (rows - mean) / scale
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    direction = unit[17] / scale
    weights = 1 / np.linalg.norm((rows - mean) / scale, axis=1)
    result = topk(
        direction.astype(np.float32)[None], rows, 300, offsets=-np.float32([mean @ direction]), weights=weights.astype(np.float32)
    )
    np.testing.assert_allclose(result.scores[0, 0], (unit @ unit[17])[result.indices[0, 0]], atol=2e-6)
    assert result.indices[0, 0, 0] == 17


@given(st.lists(st.integers(0, 2**16 - 1), min_size=1, max_size=300))
def test_every_float16_is_read_exactly(bits: list[int]) -> None:
    rows = np.array(bits, np.uint16).view(np.float16)[:, None]
    rows = rows[np.isfinite(rows[:, 0])]
    result = topk(np.ones((1, 1), np.float32), rows, len(bits))
    expected = rows[:, 0].astype(np.float32)
    order = np.argsort(-expected, kind="stable")
    np.testing.assert_array_equal(result.scores[0, 0], expected[order])
    np.testing.assert_array_equal(result.indices[0, 0], order)


def test_a_score_beyond_float_is_an_error_unless_its_weight_brings_it_back() -> None:
    huge = np.full((1, 7), 1e30, np.float32)
    with pytest.raises(ValueError, match=r"^queries: row 0 and gallery: row 0 have a score beyond float32; scale one of them$"):
        topk(huge, huge, 1)
    assert topk(huge, huge, 1, weights=np.float32([1e-38])).scores == pytest.approx(7e22)


def test_products_may_overflow_where_their_sum_does_not() -> None:
    query = np.array([[1e30, 1e30, 1.0]], np.float32)
    gallery = np.array([[1e30, -1e30, 2.0], [0, 0, 1.0]], np.float32)
    np.testing.assert_array_equal(topk(query, gallery, 2).scores, twin.topk(query, [gallery], 2).scores)


def test_a_sum_that_falls_below_float_on_the_way_is_not_the_last() -> None:
    gallery = np.zeros((2, 48), np.float32)
    gallery[0, 0], gallery[1, [0, 16, 32]] = -3e38, [-2e38, -2e38, 3e38]  # summed by one lane of any instruction set
    result = topk(floats(1, 48), gallery, 1)
    assert result.indices == 1
    assert result.scores == twin.topk(floats(1, 48), [gallery], 1).scores


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize("column", [0, 32, 64])
@pytest.mark.parametrize("storage", STORAGES)
def test_non_finite_input_is_an_error_and_never_an_index(value: float, column: int, storage: str) -> None:
    problem = make(0, 5, 97, 65, 3, storage)
    problem.blocks[0][[70, 80], column] = value
    with pytest.raises(ValueError, match=r"^gallery: row 70 is not finite; every value must be$"):
        problem()
    left_out = replace(problem, groups=np.where(np.isin(np.arange(97), [70, 80]), -1, 0).astype(np.int32))
    assert not np.isin(left_out().indices, [70, 80]).any()
    problem.queries[2, column] = value
    with pytest.raises(ValueError, match=r"^queries: row 2 is not finite; every value must be$"):
        problem()


@pytest.mark.parametrize("argument", ["offsets", "weights"])
def test_offsets_and_weights_must_be_finite(argument: str) -> None:
    problem = make(0, 5, 97, 65, 3, scored=True)
    getattr(problem, argument)[3] = np.nan
    with pytest.raises(ValueError, match=rf"^{argument}\[3\] is not finite; every value must be$"):
        problem()


def floats(*shape: int) -> NDArray[np.float32]:
    return np.ones(shape, np.float32)


@pytest.mark.parametrize(
    ("queries", "blocks", "options", "message"),
    [
        (floats(0, 3), floats(1, 3), {}, r"queries has shape \(0, 3\); it must have at least one row and one column"),
        (floats(1, 0), floats(1, 1), {}, r"queries has shape \(1, 0\); it must have at least one row and one column"),
        (floats(1, 3), floats(1, 4), {}, "blocks has 4 columns in all; it must have 3, as queries has"),
        (floats(1, 3), [floats(1, 1), floats(1, 1)], {}, "blocks has 2 columns in all; it must have 3, as queries has"),
        (floats(1, 3), [floats(4, 1), floats(5, 2)], {}, r"blocks\[1\] has shape \(5, 2\); it must have 4 rows, as blocks\[0\] has"),
        (floats(1, 3), [], {}, "blocks has 0 arrays; it must have 1 to 64"),
        (floats(1, 3), floats(1, 3), {"k": 0}, "k is 0; it must be at least 1"),
        (floats(1, 3), floats(1, 3), {"k": -2}, "k is -2; it must be at least 1"),
        (floats(1, 3), floats(1, 3), {"group_count": 0}, "group_count is 0; it must be at least 1"),
        (floats(1, 3), floats(1, 3), {"offsets": floats(2)}, "offsets has length 2; it must have 1"),
        (floats(1, 3), floats(4, 3), {"weights": floats(2)}, "weights has length 2; it must have 4"),
        (floats(1, 3), floats(4, 3), {"groups": np.zeros(3, np.int32)}, "groups has length 3; it must have 4"),
        (floats(1, 3), floats(2, 3), {"groups": np.int32([0, 1])}, r"groups\[1\] is 1; it must be below 1, the number of groups"),
    ],
)
def test_arguments_that_do_not_fit_together_are_named(queries: Any, blocks: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        topk(queries, blocks, **{"k": 1, **options})


@pytest.mark.parametrize(
    ("queries", "blocks", "options", "message"),
    [
        (floats(1, 3).astype(np.float64), floats(1, 3), {}, "queries is a C-contiguous 2-D float64 array"),
        (floats(3), floats(1, 3), {}, "queries is a C-contiguous 1-D float32 array"),
        (floats(1, 3), floats(4, 6)[::2, ::2], {}, r"blocks\[0\] is a strided 2-D float32 array"),
        (floats(1, 3), floats(1, 3).astype(np.float64), {}, r"blocks\[0\] is a C-contiguous 2-D float64 array"),
        (floats(1, 3), floats(1, 3).astype(np.uint16), {}, r"blocks\[0\] is a C-contiguous 2-D uint16 array"),
        (floats(1, 3), [[[1.0, 1.0, 1.0]]], {}, r"blocks\[0\] is a list; it must be a numpy.ndarray"),
        (floats(1, 3), floats(1, 3), {"groups": np.zeros(1, np.int64)}, "groups is a C-contiguous 1-D int64 array"),
        (floats(1, 3), floats(1, 3), {"k": 1.5}, "k is a float; it must be an int"),
    ],
)
def test_an_argument_of_another_type_is_refused_not_converted(queries: Any, blocks: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=f"^{message}"):
        topk(queries, blocks, **{"k": 1, **options})


@pytest.mark.parametrize("count", [1, 3, 12])
def test_rows_that_are_equal_in_float32_are_ranked_in_float64(count: int) -> None:
    rng = np.random.default_rng(0)
    queries, rows = rng.standard_normal((5, 33)), 1 + 1e-9 * rng.standard_normal((40, 33))
    rows[30:] = rows[29]  # of equal ones the first go first
    assert len(np.unique(rows.astype(np.float32), axis=0)) == 1
    groups = (np.arange(40) % 3 - 1).astype(np.int32)
    found = nearest_rows(queries, rows, count, groups=groups, group_count=2)
    for q in range(5):
        for group in range(2):
            members = np.flatnonzero(groups == group)
            exact = (rows[members] * queries[q]).sum(1)
            np.testing.assert_array_equal(found[q, group], members[np.argsort(-exact, kind="stable")[:count]])


def test_only_rows_that_can_be_the_best_are_ranked_again() -> None:
    found = topk(floats(1, 1), np.float32([[9], [5], [4.9], [1], [7]]), 5)
    asked: list[int] = []

    def exact(_: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.float64]:
        asked.extend(rows.tolist())
        return -rows.astype(np.float64)

    rows, scores = ranked_again(found, exact, 3, np.full((1, 1, 5), 0.1))
    assert sorted(asked) == [0, 1, 2, 4]
    np.testing.assert_array_equal(rows[0, 0], [0, 1, 2])
    np.testing.assert_array_equal(scores[0, 0], [0, -1, -2])


def test_a_group_with_fewer_rows_than_are_wanted_is_filled_up() -> None:
    found = nearest_rows(np.ones((2, 4)), np.ones((3, 4)), 2, groups=np.int32([1, -1, -1]), group_count=2)
    np.testing.assert_array_equal(found, [[[-1, -1], [0, -1]]] * 2)


def test_a_memory_mapped_gallery_is_read_in_place(tmp_path: Path) -> None:
    problem = make(0, 2, 97, 33, 5)
    path = tmp_path / "gallery.npy"
    np.save(path, problem.blocks[0])
    mapped = np.load(path, mmap_mode="r")
    assert not mapped.flags.writeable
    for got, want in zip(topk(problem.queries, mapped, 5), problem(), strict=True):
        np.testing.assert_array_equal(got, want)


def test_other_python_threads_run_during_a_call() -> None:
    if isa() == "reference":
        pytest.skip("NumPy's own business")
    problem = make(0, 64, 20_000, 768, 10)
    ticks: list[float] = []
    done = threading.Event()
    thread = threading.Thread(target=lambda: (problem(), done.set()))
    thread.start()
    while not done.wait(0.001):
        ticks.append(time.perf_counter())
    thread.join()
    assert len(ticks) > 3  # with the lock held, the first wait would end with the call
