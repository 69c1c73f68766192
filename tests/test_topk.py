"""The top-k kernel, in every form that this machine can run, against its float64 twin and its own promises."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import resynth_fast.kernels.similarity
from resynth_fast.kernels import twins
from resynth_fast.kernels.similarity import backend
from resynth_fast.kernels.topk import Metric, TopK, as_bfloat16, topk

DIMENSIONS = (1, 7, 31, 33, 64, 65, 97, 768)
METRICS: tuple[Metric, ...] = ("dot", "cosine")
STORAGES = ("float32", "bfloat16")
RTOL = 4e-6  # of a float32 sum, in units of the product of the norms

Gallery = NDArray[np.float32] | NDArray[np.uint16]

FACE = resynth_fast.kernels.similarity
pytestmark = pytest.mark.usefixtures("every_backend")


@dataclass(frozen=True, kw_only=True)
class Problem:
    queries: NDArray[np.float32]
    gallery: Gallery
    k: int

    def __call__(self, metric: Metric = "cosine", of: Callable[..., TopK] = topk) -> TopK:
        return of(self.queries, self.gallery, self.k, metric=metric)


def store(rows: NDArray[np.float32], storage: str) -> Gallery:
    return rows if storage == "float32" else as_bfloat16(rows)


def make(seed: int, count: int, rows: int, dimension: int, k: int, storage: str = "float32") -> Problem:
    rng = np.random.default_rng(seed)
    queries = rng.standard_normal((count, dimension)).astype(np.float32)
    return Problem(queries=queries, gallery=store(rng.standard_normal((rows, dimension)).astype(np.float32), storage), k=k)


def assert_matches_twin(problem: Problem, metric: Metric) -> None:
    got, want = problem(metric), problem(metric, of=twins.topk)
    assert got.scores.shape == got.indices.shape == want.scores.shape
    rows, queries = twins.rows_of(problem.gallery).astype(np.float64), problem.queries.astype(np.float64)
    norms = np.linalg.norm(queries, axis=1)[:, None] * np.linalg.norm(rows, axis=1).max(initial=0)
    tolerance = RTOL * (norms if metric == "dot" else np.ones_like(norms)) + 1e-44
    assert (np.abs(got.scores.astype(np.float64) - want.scores) <= tolerance).all()
    everything = twins.topk(problem.queries, problem.gallery, max(1, len(rows)), metric=metric)
    for q, (scores, indices) in enumerate(zip(*got, strict=True)):
        assert len(set(indices)) == len(indices)
        exact = dict(zip(everything.indices[q], everything.scores[q], strict=True))
        assert all(abs(float(score) - float(exact[n])) <= tolerance[q, 0] for score, n in zip(scores, indices, strict=True))
        for n in range(1, len(scores)):  # highest first, the lower index first on a tie
            assert scores[n - 1] > scores[n] or (scores[n - 1] == scores[n] and indices[n - 1] < indices[n])


problems = st.builds(
    make,
    st.integers(0, 2**32 - 1),
    st.sampled_from([1, 2, 3, 4, 7, 65]),
    st.sampled_from([0, 1, 7, 31, 48, 49, 97, 300]),
    st.sampled_from(DIMENSIONS),
    st.sampled_from([1, 2, 10, 31, 1000]),
    st.sampled_from(STORAGES),
)
metrics = st.sampled_from(METRICS)


@given(problems, metrics)
def test_matches_the_twin(problem: Problem, metric: Metric) -> None:
    assert_matches_twin(problem, metric)


@given(problems, metrics)
def test_a_query_alone_gives_the_same_bits(problem: Problem, metric: Metric) -> None:
    together = problem(metric)
    for q in range(len(problem.queries)):
        alone = Problem(queries=problem.queries[q : q + 1].copy(), gallery=problem.gallery, k=problem.k)(metric)
        if backend() == "reference":  # NumPy's own matrix product promises less
            np.testing.assert_allclose(alone.scores[0], together.scores[q], rtol=1e-5, atol=1e-5)
        else:
            np.testing.assert_array_equal(alone.scores[0], together.scores[q])
            np.testing.assert_array_equal(alone.indices[0], together.indices[q])


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("metric", METRICS)
def test_a_place_in_memory_does_not_matter(metric: Metric, storage: str) -> None:
    """Shifted rows are summed from another vector boundary on, and must give the same bits."""
    problem = make(3, 5, 60, 768, 60, storage)
    want = problem(metric)
    for shift in (1, 2, 3, 4, 5, 8, 12, 15):
        buffer = np.empty(problem.gallery.size + 64, problem.gallery.dtype)
        shifted = buffer[shift : shift + problem.gallery.size].reshape(problem.gallery.shape)
        shifted[:] = problem.gallery
        got = Problem(queries=problem.queries, gallery=shifted, k=60)(metric)
        np.testing.assert_array_equal(got.scores, want.scores)
        np.testing.assert_array_equal(got.indices, want.indices)


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("count", [1, 5])
def test_a_gallery_larger_than_the_cache(metric: Metric, storage: str, count: int) -> None:
    """Rows that are fetched ahead, the last ones with nothing behind them."""
    problem = make(0, count, 16_411, 257, 9, storage)
    assert problem.gallery.nbytes > 8 << 20
    if backend() != "serial" or count == 1:  # one of the slow ones is enough
        assert_matches_twin(problem, metric)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("k", [1, 3, 5, 100])
def test_ties_go_to_the_lowest_index(metric: Metric, k: int) -> None:
    row, other = np.random.default_rng(0).standard_normal((2, 1, 33)).astype(np.float32)
    gallery = np.concatenate([-other, np.repeat(row, 60, axis=0), -row, np.repeat(row, 30, axis=0)])
    result = topk(row, gallery, k, metric=metric)
    equal = [*range(1, 61), *range(62, 92)]
    np.testing.assert_array_equal(result.indices[0, : min(k, 90)], equal[:k])


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("order", [1, -1])
def test_rising_and_falling_galleries(order: int, storage: str) -> None:
    """Every row enters the best, or none after the first do."""
    gallery = store(np.arange(200, dtype=np.float32)[::order, None].copy(), storage)  # exact in bfloat16
    result = topk(np.ones((1, 1), np.float32), gallery, 50, metric="dot")
    np.testing.assert_array_equal(result.scores[0], np.arange(199, 149, -1))
    np.testing.assert_array_equal(result.indices[0], np.arange(200)[::order][result.scores[0].astype(int)])


def test_a_gallery_of_fewer_rows_than_k_gives_all() -> None:
    result = make(0, 2, 3, 7, 10)()
    assert result.scores.shape == (2, 3)
    assert sorted(result.indices[0]) == [0, 1, 2]
    assert make(0, 2, 0, 7, 10)().indices.shape == (2, 0)


@pytest.mark.parametrize("dimension", DIMENSIONS)
@pytest.mark.parametrize("scale", [1e-45, 1e-39, 1e-25, 1e25, 3e38], ids=str)
def test_denormal_and_huge_values_keep_their_cosine(scale: float, dimension: int) -> None:
    signs = np.where(np.random.default_rng(dimension).random((50, dimension)) < 0.5, -1.0, 1.0)
    extreme, ordinary = (signs * scale).astype(np.float32), signs.astype(np.float32)
    for queries, gallery in ((extreme, extreme), (extreme, ordinary), (ordinary, extreme)):
        problem = Problem(queries=queries[:3], gallery=gallery, k=50)
        assert_matches_twin(problem, "cosine")


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("metric", METRICS)
def test_zero_vectors_score_zero(metric: Metric, storage: str) -> None:
    zero, ones = np.zeros((1, 33), np.float32), np.ones((1, 33), np.float32)
    result = topk(np.concatenate([zero, ones]), store(np.concatenate([zero, ones]), storage), 2, metric=metric)
    np.testing.assert_array_equal(result.scores[0], [0, 0])
    np.testing.assert_array_equal(result.indices, [[0, 1], [1, 0]])
    assert result.scores[1, 1] == 0


def test_an_inner_product_beyond_float_is_an_error_and_its_cosine_is_not() -> None:
    huge = np.full((1, 7), 1e30, np.float32)
    with pytest.raises(ValueError, match=r"^queries: row 0 and gallery: row 0 have an inner product beyond float32; use metric 'cosine'$"):
        topk(huge, huge, 1, metric="dot")
    assert topk(huge, huge, 1).scores == 1.0


def test_products_that_overflow_on_the_way_but_not_in_the_sum() -> None:
    query = np.array([[1e30, 1e30, 1.0]], np.float32)
    gallery = np.array([[1e30, -1e30, 2.0], [0, 0, 1.0]], np.float32)
    result = topk(query, gallery, 2, metric="dot")
    np.testing.assert_array_equal(result.scores, twins.topk(query, gallery, 2, metric="dot").scores)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize("column", [0, 32, 64])
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("storage", STORAGES)
def test_non_finite_input_is_an_error_and_never_an_index(value: float, column: int, metric: Metric, storage: str) -> None:
    problem = make(0, 5, 97, 65, 3)
    rows = problem.gallery.astype(np.float32)
    rows[[70, 80], column] = value
    with pytest.raises(ValueError, match=r"^gallery: row 70 is not finite; every value must be$"):
        topk(problem.queries, store(rows, storage), 3, metric=metric)
    problem.queries[2, column] = value
    with pytest.raises(ValueError, match=r"^queries: row 2 is not finite; every value must be$"):
        problem(metric)


def floats(*shape: int) -> NDArray[np.float32]:
    return np.ones(shape, np.float32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((floats(0, 3), floats(1, 3), 1), r"queries has shape \(0, 3\); it must have at least one row and one column"),
        ((floats(1, 0), floats(1, 0), 1), r"queries has shape \(1, 0\); it must have at least one row and one column"),
        ((floats(1, 3), floats(1, 4), 1), "gallery has 4 columns; it must have 3, as queries has"),
        ((floats(1, 3), floats(1, 3), 0), "k is 0; it must be at least 1"),
        ((floats(1, 3), floats(1, 3), -2), "k is -2; it must be at least 1"),
    ],
)
def test_arguments_that_do_not_fit_together_are_named(
    arguments: tuple[NDArray[np.float32], NDArray[np.float32], int], message: str
) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        topk(*arguments)


def test_an_unknown_metric_is_named() -> None:
    with pytest.raises(ValueError, match=r"^metric is 'l2'; it must be 'dot' or 'cosine'$"):
        topk(floats(1, 3), floats(1, 3), 1, metric="l2")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((floats(1, 3).astype(np.float64), floats(1, 3), 1), "queries is a C-contiguous 2-D float64 array"),
        ((floats(3), floats(1, 3), 1), "queries is a C-contiguous 1-D float32 array"),
        ((floats(1, 3), floats(4, 6)[::2, ::2], 1), "gallery is a strided 2-D float32 array"),
        ((floats(1, 3), floats(1, 3).astype(np.float16), 1), "gallery is a C-contiguous 2-D float16 array"),
        ((floats(1, 3), floats(1, 3).astype(np.int16), 1), "gallery is a C-contiguous 2-D int16 array"),
        ((floats(1, 3), [[1.0, 1.0, 1.0]], 1), "gallery is a list; it must be a numpy.ndarray"),
        ((floats(1, 3), floats(1, 3), 1.5), "k is a float; it must be an int"),
    ],
)
def test_an_argument_of_another_kind_is_refused_not_converted(arguments: tuple[NDArray[np.float32], Gallery, int], message: str) -> None:
    with pytest.raises(TypeError, match=f"^{message}"):
        topk(*arguments)


def test_a_memory_mapped_gallery_is_read_in_place(tmp_path: Path) -> None:
    problem = make(0, 2, 97, 33, 5)
    path = tmp_path / "gallery.npy"
    np.save(path, problem.gallery)
    mapped = np.load(path, mmap_mode="r")
    assert not mapped.flags.writeable
    for got, want in zip(topk(problem.queries, mapped, 5), problem(), strict=True):
        np.testing.assert_array_equal(got, want)


@given(st.floats(width=32))
def test_bfloat16_is_the_nearest(value: float) -> None:
    rounded = float(twins.rows_of(as_bfloat16(np.array([[value]], np.float32)))[0, 0])
    if np.isnan(value):
        assert np.isnan(rounded)
        return
    torch = pytest.importorskip("torch")
    assert rounded == float(torch.tensor(value, dtype=torch.float32).bfloat16())


def test_other_python_threads_run_meanwhile() -> None:
    if backend() == "reference":
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
