"""The similarity kernel, in every form that this machine can run, against its float64 twin and its own promises."""

import ast
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import resynth_fast.kernels.similarity
from resynth_fast.kernels import _native
from resynth_fast.kernels.similarity import Reduce, Similarity, similarity
from resynth_fast.kernels.twins import similarity as twin

DIMENSIONS = (1, 7, 31, 33, 65, 97, 768)
REDUCES: tuple[Reduce, ...] = ("max", "mean")
ATOL = 2e-6  # of a float32 cosine

pytestmark = pytest.mark.usefixtures("every_isa")


@dataclass(frozen=True, kw_only=True)
class Problem:
    probes: NDArray[np.float32]
    references: NDArray[np.float32]
    offsets: NDArray[np.int64]

    def __call__(self, reduce: Reduce = "max", of: Callable[..., Similarity] = similarity) -> Similarity:
        return of(self.probes, self.references, self.offsets, reduce=reduce)


def make(seed: int, sizes: list[list[int]], dimension: int) -> Problem:
    """`sizes[p][c]` references for probe p and candidate c, some of them near the probe so that cosines spread."""
    rng = np.random.default_rng(seed)
    counts = np.array(sizes)
    probes = rng.standard_normal((len(counts), dimension)).astype(np.float32)
    owner = np.repeat(np.arange(len(counts)), counts.sum(axis=1))
    noise = rng.standard_normal((len(owner), dimension)) * rng.uniform(0.1, 3.0, (len(owner), 1))
    offsets = np.concatenate([[0], counts.ravel().cumsum()]).astype(np.int64)
    return Problem(probes=probes, references=(probes[owner] + noise).astype(np.float32), offsets=offsets)


def assert_matches_twin(problem: Problem, reduce: Reduce = "max") -> None:
    got, want = problem(reduce), problem(reduce, of=twin.similarity)
    np.testing.assert_allclose(got.scores, want.scores, rtol=0, atol=ATOL)
    np.testing.assert_allclose(got.margin, want.margin, rtol=0, atol=2 * ATOL)
    for p, best in enumerate(got.best):  # a near-tie may fall either way; a real lead may not
        assert best == want.best[p] or want.scores[p].max() - want.scores[p, best] <= 2 * ATOL


sizes = st.integers(1, 5).flatmap(lambda c: st.lists(st.lists(st.integers(0, 4), min_size=c, max_size=c), min_size=1, max_size=4))
problems = st.builds(make, st.integers(0, 2**32 - 1), sizes, st.sampled_from(DIMENSIONS))
reduces = st.sampled_from(REDUCES)


@given(problems, reduces)
def test_matches_the_twin(problem: Problem, reduce: Reduce) -> None:
    assert_matches_twin(problem, reduce)


@given(problems, reduces)
def test_best_and_margin_follow_from_the_scores(problem: Problem, reduce: Reduce) -> None:
    scores, best, margin = problem(reduce)
    assert scores.dtype == np.float32
    assert best.dtype == np.int64
    assert margin.dtype == np.float32
    for p, row in enumerate(scores):
        if np.isneginf(row).all():
            assert (best[p], margin[p]) == (-1, 0.0)
        else:
            assert best[p] == row.argmax()
            assert margin[p] == row.max() - np.delete(row, best[p]).max(initial=-np.inf)


@given(problems, reduces)
def test_a_probe_alone_gives_the_same_bits(problem: Problem, reduce: Reduce) -> None:
    together = problem(reduce)
    candidates = together.scores.shape[1]
    for p in range(len(problem.probes)):
        offsets = problem.offsets[p * candidates : (p + 1) * candidates + 1]
        own = problem.references[offsets[0] : offsets[-1]]
        alone = Problem(probes=problem.probes[p : p + 1], references=own, offsets=offsets - offsets[0])(reduce)
        for whole, part in zip(together, alone, strict=True):
            np.testing.assert_array_equal(np.asarray(whole)[p : p + 1], part)


@given(problems, reduces, st.floats(-60, 60))
def test_length_of_a_vector_does_not_matter(problem: Problem, reduce: Reduce, exponent: float) -> None:
    scale = np.float32(2.0 ** round(exponent))  # a power of two changes no digit
    scaled = Problem(probes=problem.probes * scale, references=problem.references / scale, offsets=problem.offsets)
    np.testing.assert_allclose(scaled(reduce).scores, problem(reduce).scores, rtol=0, atol=ATOL)


@pytest.mark.parametrize("dimension", DIMENSIONS)
@pytest.mark.parametrize("scale", [1e-45, 1e-39, 1e-25, 1e25, 3e38], ids=str)
def test_denormal_and_huge_values_keep_their_cosine(scale: float, dimension: int) -> None:
    signs = np.where(np.random.default_rng(dimension).random((5, dimension)) < 0.5, -1.0, 1.0)
    extreme = (signs * scale).astype(np.float32)
    ordinary = signs.astype(np.float32)
    offsets = np.arange(5, dtype=np.int64)
    want = signs[1:] @ signs[0] / dimension
    for probe, references in ((extreme, extreme), (extreme, ordinary), (ordinary, extreme)):
        scores = similarity(probe[:1], references[1:], offsets).scores[0]
        np.testing.assert_allclose(scores, want, rtol=0, atol=ATOL)


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_zero_vectors_have_cosine_zero(dimension: int) -> None:
    zero, one = np.zeros((1, dimension), np.float32), np.ones((1, dimension), np.float32)
    for probe, ref in ((zero, one), (one, zero), (zero, zero)):
        assert similarity(probe, ref, np.array([0, 1])).scores == 0.0


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_a_vector_with_itself_is_never_above_one(dimension: int) -> None:
    rows = np.random.default_rng(0).standard_normal((50, dimension)).astype(np.float32)
    scores = similarity(rows, rows, np.arange(51)).scores
    assert scores.max() <= 1.0
    np.testing.assert_allclose(scores, 1.0, rtol=0, atol=ATOL)


@pytest.mark.parametrize("reduce", REDUCES)
def test_ties_go_to_the_lowest_candidate(reduce: Reduce) -> None:
    probe, row = np.random.default_rng(0).standard_normal((2, 1, 33)).astype(np.float32)
    result = similarity(probe, np.repeat(row, 4, axis=0), np.array([0, 0, 1, 2, 4]), reduce=reduce)
    assert result.best == 1
    assert result.margin == 0.0


def test_max_and_mean_are_the_stated_reductions() -> None:
    probe = np.array([[1, 0]], np.float32)
    references = np.array([[1, 0], [0, 1], [1, 1]], np.float32)
    offsets = np.array([0, 2, 3])
    np.testing.assert_allclose(similarity(probe, references, offsets, reduce="max").scores, [[1, 0.5**0.5]], atol=ATOL)
    np.testing.assert_allclose(similarity(probe, references, offsets, reduce="mean").scores, [[0.5, 0.5**0.5]], atol=ATOL)


def test_mean_of_a_large_group_does_not_drift() -> None:
    rng = np.random.default_rng(0)
    problem = make(1, [[20_000]], 7)
    assert_matches_twin(Problem(probes=problem.probes, references=rng.permutation(problem.references), offsets=problem.offsets), "mean")


@pytest.mark.parametrize(("offsets", "best", "margin"), [([0, 1], 0, np.inf), ([0, 0, 1, 1], 1, np.inf), ([0, 0, 0], -1, 0.0)])
def test_a_single_candidate_has_the_margin_of_no_rival(offsets: list[int], best: int, margin: float) -> None:
    rows = np.ones((offsets[-1], 3), np.float32)
    result = similarity(np.ones((1, 3), np.float32), rows, np.array(offsets))
    assert result.best == best
    assert result.margin == margin


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize("column", [0, 32, 64])
@pytest.mark.parametrize("reduce", REDUCES)
def test_non_finite_input_is_an_error_and_never_a_label(value: float, column: int, reduce: Reduce) -> None:
    problem = make(0, [[2, 1], [1, 3]], 65)
    for name, rows, row in (("probes", problem.probes, 1), ("references", problem.references, 4)):
        kept = rows[row, column]
        rows[row, column] = value
        with pytest.raises(ValueError, match=f"^{name}: row {row} is not finite; every value must be$"):
            problem(reduce)
        rows[row, column] = kept


def test_a_non_finite_probe_without_references_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"^probes: row 0 is not finite"):
        similarity(np.full((1, 3), np.nan, np.float32), np.ones((0, 3), np.float32), np.array([0, 0]))


def floats(*shape: int) -> NDArray[np.float32]:
    return np.ones(shape, np.float32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((floats(0, 3), floats(1, 3), np.array([0, 1])), r"probes has shape \(0, 3\); it must have at least one row and one column"),
        ((floats(1, 0), floats(1, 0), np.array([0, 1])), r"probes has shape \(1, 0\); it must have at least one row and one column"),
        ((floats(1, 3), floats(1, 4), np.array([0, 1])), "references has 4 columns; it must have 3, as probes has"),
        ((floats(2, 3), floats(1, 3), np.array([0, 1])), r"offsets has length 2; it must be probes \* candidates \+ 1, with 2 probes"),
        ((floats(1, 3), floats(1, 3), np.array([0])), r"offsets has length 1; it must be probes \* candidates \+ 1, with 1 probes"),
        ((floats(1, 3), floats(1, 3), np.array([], np.int64)), "offsets has length 0; it must be"),
        ((floats(1, 3), floats(1, 3), np.array([1, 1])), r"offsets\[0\] is 1; it must be 0"),
        ((floats(1, 3), floats(2, 3), np.array([0, 2, 1])), r"offsets\[2\] is 1; it must be at least offsets\[1\] = 2"),
        ((floats(1, 3), floats(2, 3), np.array([0, 1])), r"offsets\[1\] is 1; it must be 2, the number of references"),
    ],
)
def test_arguments_that_do_not_fit_together_are_named(arguments: tuple[NDArray[np.float32], ...], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        similarity(*arguments)  # type: ignore[arg-type]


def test_an_unknown_reduction_is_named() -> None:
    with pytest.raises(ValueError, match=r"^reduce is 'median'; it must be 'max' or 'mean'$"):
        similarity(floats(1, 3), floats(1, 3), np.array([0, 1]), reduce="median")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((floats(1, 3).astype(np.float64), floats(1, 3), np.array([0, 1])), "probes is a C-contiguous 2-D float64 array"),
        ((floats(3), floats(1, 3), np.array([0, 1])), "probes is a C-contiguous 1-D float32 array"),
        ((floats(1, 3), floats(4, 6)[::2, ::2], np.array([0, 1])), "references is a strided 2-D float32 array"),
        ((floats(1, 3), floats(1, 3), np.array([0, 1], np.int32)), "offsets is a C-contiguous 1-D int32 array"),
        ((floats(1, 3), floats(1, 3), [0, 1]), "offsets is a list; it must be a numpy.ndarray"),
    ],
)
def test_an_array_of_another_type_is_refused_not_converted(arguments: tuple[NDArray[np.float32], ...], message: str) -> None:
    with pytest.raises(TypeError, match=f"^{message}"):
        similarity(*arguments)  # type: ignore[arg-type]


def test_inputs_are_not_written_to() -> None:
    problem = make(0, [[2, 1], [1, 3]], 33)
    for array in (problem.probes, problem.references, problem.offsets):
        array.flags.writeable = False
    assert_matches_twin(problem)


def test_only_instruction_sets_of_this_processor_can_be_forced() -> None:
    with pytest.raises(ValueError, match=r"^isa is 'mmx'; this processor allows serial"):
        _native.force_isa("mmx")


@pytest.mark.parametrize("module", ["_native", "_cuda"])
def test_stub_names_what_the_extension_has(module: str) -> None:
    if importlib.util.find_spec(f"resynth_fast.kernels.{module}") is None:
        pytest.skip(f"resynth_fast was built without {module}")
    extension = importlib.import_module(f"resynth_fast.kernels.{module}")
    stub = ast.parse(Path(resynth_fast.kernels.similarity.__file__).with_name(f"{module}.pyi").read_text())
    functions = {node.name: [arg.arg for arg in node.args.args] for node in stub.body if isinstance(node, ast.FunctionDef)}
    assert set(functions) == {name for name in dir(extension) if not name.startswith("_")}
    for name, arguments in functions.items():
        signature = getattr(extension, name).__nb_signature__[0][0]
        assert all(f"{argument}: " in signature for argument in arguments)


@pytest.mark.gpu
@pytest.mark.parametrize("reduce", REDUCES)
def test_cuda_matches_the_twin(reduce: Reduce) -> None:
    torch = pytest.importorskip("torch")
    from resynth_fast.kernels import _cuda

    for dimension in DIMENSIONS:
        problem = make(dimension, [[2, 0, 5, 1], [1, 3, 0, 40]], dimension)
        probes, references, offsets = (torch.from_numpy(array).cuda() for array in (problem.probes, problem.references, problem.offsets))
        scores, margin = torch.empty((2, 4), device="cuda"), torch.empty(2, device="cuda")
        best = torch.empty(2, dtype=torch.int64, device="cuda")
        stream = torch.cuda.current_stream().cuda_stream
        _cuda.similarity(probes, references, offsets, reduce, scores, best, margin, stream)
        want = problem(reduce, of=twin.similarity)
        np.testing.assert_allclose(scores.cpu(), want.scores, rtol=0, atol=ATOL)
        np.testing.assert_array_equal(best.cpu(), want.best)
        np.testing.assert_allclose(margin.cpu(), want.margin, rtol=0, atol=2 * ATOL)


@pytest.mark.gpu
def test_cuda_kernel_can_be_captured_into_a_graph() -> None:
    torch = pytest.importorskip("torch")
    from resynth_fast.kernels import _cuda

    problem = make(0, [[2, 1, 3]], 97)
    probes, references, offsets = (torch.from_numpy(array).cuda() for array in (problem.probes, problem.references, problem.offsets))
    scores, margin = torch.zeros((1, 3), device="cuda"), torch.zeros(1, device="cuda")
    best = torch.zeros(1, dtype=torch.int64, device="cuda")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        stream = torch.cuda.current_stream().cuda_stream
        _cuda.similarity(probes, references, offsets, "max", scores, best, margin, stream)
    graph.replay()
    np.testing.assert_allclose(scores.cpu(), problem(of=twin.similarity).scores, rtol=0, atol=ATOL)
