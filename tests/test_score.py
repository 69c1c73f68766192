"""The score kernel, in every form that this machine can run, against its float64 twin and its own promises."""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
from emulation import Emulation
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from resynth_fast import kernels
from resynth_fast.kernels import _native
from resynth_fast.kernels.similarity import GalleryPrior, Scores, score
from resynth_fast.kernels.twins import similarity as twin

DIMENSIONS = (1, 7, 8, 31, 256, 257, 777)
RTOL = 1e-10  # of float64 sums in another order

Doubles = NDArray[np.float64]
Integers = NDArray[np.int64]
pytestmark = pytest.mark.usefixtures("every_isa")


@dataclass(frozen=True, kw_only=True)
class Problem:
    points: Doubles
    references: Doubles
    rows: Integers
    offsets: Integers
    prior: GalleryPrior
    energy: float = 0.7
    content: Doubles | None = None

    def __call__(self, of: Callable[..., Scores] = score) -> Scores:
        return of(self.points, self.references, self.rows, self.offsets, self.prior, self.energy, content=self.content)

    def only(self, p: int) -> "Problem":
        """Probe p alone, with nothing but its own references."""
        candidates = self.prior.weights.shape[1]
        offsets = self.offsets[p * candidates : (p + 1) * candidates + 1]
        own = self.rows[offsets[0] : offsets[-1]]
        prior = self.prior if len(self.prior.advantage) == 1 else GalleryPrior(*(None if a is None else a[p : p + 1] for a in self.prior))
        return replace(
            self,
            points=self.points[p : p + 1],
            references=self.references[own],
            rows=np.arange(len(own)),
            offsets=offsets - offsets[0],
            prior=prior,
            content=None if self.content is None else self.content[p : p + 1],
        )


def prior_of(rng: np.random.Generator, kind: str, probes: int, candidates: int, dimension: int) -> GalleryPrior:
    """ "none": no gallery; "one": the same for all probes; "each": one for each, of which some do not know every candidate."""
    if kind == "none":
        return GalleryPrior(None, np.zeros((1, candidates)), np.full((1, candidates), 0.4), np.zeros(1))
    count = 1 if kind == "one" else probes
    advantage = np.full(count, 2.0)
    advantage[1::2] = 0.0
    return GalleryPrior(
        rng.standard_normal((count, candidates, dimension)),
        rng.random((count, candidates)),
        0.05 + rng.random((count, candidates)),
        advantage,
    )


def make(
    seed: int, sizes: list[list[int]], dimension: int, *, points: int = 1, prior: str = "none", given_content: bool = False
) -> Problem:
    """`sizes[p][c]` references for probe p and candidate c, drawn from a pool in which they are not in order."""
    rng = np.random.default_rng(seed)
    counts = np.array(sizes)
    if not given_content:
        counts[counts.sum(1) == 0, 0] = 1  # a probe without references has no content
    total, (probes, candidates) = int(counts.sum()), counts.shape
    shared = rng.standard_normal(dimension)
    return Problem(
        points=shared + rng.standard_normal((probes, points, dimension)),
        references=shared + rng.standard_normal((total + 3, dimension)),
        rows=rng.permutation(total + 3)[:total],
        offsets=np.concatenate([[0], counts.ravel().cumsum()]).astype(np.int64),
        prior=prior_of(rng, prior, probes, candidates, dimension),
        content=rng.standard_normal((probes, dimension)) if given_content else None,
    )


def assert_close(got: Scores, want: Scores) -> None:
    np.testing.assert_allclose(got.scores, want.scores, rtol=RTOL, atol=RTOL)
    np.testing.assert_allclose(got.consistency, want.consistency, rtol=RTOL, atol=RTOL)


sizes = st.integers(1, 5).flatmap(lambda c: st.lists(st.lists(st.integers(0, 4), min_size=c, max_size=c), min_size=1, max_size=4))
problems = st.builds(
    make,
    st.integers(0, 2**32 - 1),
    sizes,
    st.sampled_from(DIMENSIONS),
    points=st.integers(1, 3),
    prior=st.sampled_from(("none", "one", "each")),
    given_content=st.booleans(),
)


@given(problems)
def test_matches_the_twin(problem: Problem) -> None:
    assert_close(problem(), problem(of=twin.score))


@given(problems)
def test_a_probe_alone_gives_the_same_bits(problem: Problem) -> None:
    together = problem()
    for p in range(len(problem.points)):
        alone = problem.only(p)()
        np.testing.assert_array_equal(together.scores[p], alone.scores[0])
        np.testing.assert_array_equal(together.consistency[p], alone.consistency[0])


@given(problems)
def test_a_perturbed_copy_is_judged_as_if_it_were_the_only_point(problem: Problem) -> None:
    together = problem()
    for j in range(problem.points.shape[1]):
        alone = replace(problem, points=np.ascontiguousarray(problem.points[:, j : j + 1]))()
        np.testing.assert_array_equal(together.scores[:, j], alone.scores[:, 0])
        np.testing.assert_array_equal(together.consistency[:, j], alone.consistency[:, 0])


@given(problems)
def test_every_instruction_set_gives_the_same_bits(problem: Problem) -> None:
    if not kernels.compiled():
        pytest.skip("the twin has none")
    got, before = problem(), _native.isa()
    try:
        _native.force_isa("serial")
        want = problem()
    finally:
        _native.force_isa(before)
    np.testing.assert_array_equal(got.scores, want.scores)
    np.testing.assert_array_equal(got.consistency, want.consistency)


def test_the_nearest_candidate_scores_highest_whatever_the_content() -> None:
    rng = np.random.default_rng(0)
    offsets, content = rng.standard_normal((4, 300)), 30 * rng.standard_normal(300)
    references = np.concatenate([content + offset + 0.3 * rng.standard_normal((3, 300)) for offset in offsets])
    points = (content + offsets + 0.3 * rng.standard_normal((4, 300)))[:, None]
    prior = GalleryPrior(None, np.zeros((1, 4)), np.full((1, 4), 0.4), np.zeros(1))
    found = score(points, references, np.tile(np.arange(12), 4), np.arange(17) * 3, prior, 27.0)
    np.testing.assert_array_equal(found.scores[:, 0].argmax(1), range(4))


def test_consistency_falls_when_no_candidate_makes_such_pictures() -> None:
    rng = np.random.default_rng(1)
    makes, other = rng.standard_normal((2, 300))
    references = makes + 0.5 * rng.standard_normal((4, 300))
    points = np.stack([makes, other])[None] + 0.5 * rng.standard_normal((1, 2, 300))
    prior = GalleryPrior(None, np.zeros((1, 2)), np.full((1, 2), 0.4), np.zeros(1))
    [[like, unlike]] = score(points, references, np.arange(4), np.array([0, 2, 4]), prior, 75.0).consistency
    assert like > unlike + 0.5


def test_the_advantage_is_twice_the_cosine_with_what_the_gallery_expects() -> None:
    """References at the content; the gallery expects candidates at 1 and -1 of the first column from it."""
    content = 5 * np.random.default_rng(3).standard_normal(9)
    first, second = np.eye(9)[:2]
    points = (content + np.stack([first, first + second, second, 3 * first - 4 * second, -first]))[None]
    arrays = (np.stack([first, -first])[None], np.ones((1, 2)), np.full((1, 2), 0.1))
    told, untold = (
        score(points, np.stack([content, content]), np.arange(2), np.arange(3), GalleryPrior(*arrays, np.full(1, weight)), 1.0)
        for weight in (2.0, 0.0)
    )
    np.testing.assert_array_equal(told.scores, untold.scores)
    np.testing.assert_allclose((told.consistency - untold.consistency)[0], [2, 2**0.5, 0, 1.2, 2], atol=1e-12)


def test_what_no_candidate_explains_does_not_make_a_known_picture_a_stranger() -> None:
    """A degraded picture of a candidate, far from all that the gallery holds, beside a stranger's clean one."""
    rng = np.random.default_rng(4)
    content, offset, other, stranger, degradation = rng.standard_normal((5, 400))
    means = np.stack([offset, other])[None]
    references = content + means[0] + 0.5 * rng.standard_normal((2, 400))
    points = content + np.stack([offset + 2 * degradation, stranger])[None]
    prior = GalleryPrior(means - means.mean(1), np.ones((1, 2)), np.full((1, 2), 0.1), np.full(1, 2.0))
    [[degraded, clean]] = score(points, references, np.arange(2), np.arange(3), prior, 100.0).consistency
    assert degraded > clean + 0.25


def test_a_candidate_without_references_is_judged_by_the_gallery() -> None:
    rng = np.random.default_rng(2)
    means = rng.standard_normal((1, 3, 200))
    prior = GalleryPrior(means, np.ones((1, 3)), np.full((1, 3), 0.1), np.full(1, 0.3))
    content = 5 * rng.standard_normal(200)
    points = content + (means[0, 2] - means[0].mean(0)) + 0.1 * rng.standard_normal((1, 1, 200))
    found = score(points, content + means[0, :2], np.arange(2), np.array([0, 1, 2, 2]), prior, 10.0, content=content[None])
    assert found.scores.argmax() == 2


def test_a_probe_without_references_has_scores_but_no_consistency() -> None:
    found = make(0, [[0, 0], [1, 0]], 31, prior="one", given_content=True)()
    assert np.isfinite(found.scores).all()
    np.testing.assert_array_equal(np.isnan(found.consistency), [[True], [False]])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize("column", [0, 255, 256])
def test_a_value_that_is_not_finite_makes_only_its_own_probe_nan(value: float, column: int) -> None:
    problem = make(3, [[2, 1], [1, 3]], 257)
    expected = problem()
    problem.references[problem.rows[4], column] = value
    with np.errstate(invalid="ignore", over="ignore"):
        found = problem()
    np.testing.assert_array_equal(found.scores[0], expected.scores[0])
    assert not np.isfinite(found.scores[1]).any()
    assert np.isnan(found.consistency[1])


def test_zero_vectors_have_cosine_zero() -> None:
    prior = GalleryPrior(None, np.zeros((1, 2)), np.full((1, 2), 0.4), np.zeros(1))
    found = score(np.zeros((1, 1, 9)), np.zeros((4, 9)), np.arange(4), np.array([0, 2, 4]), prior, 1.0)
    assert found.consistency == 0.0


def zeros(*shape: int) -> Doubles:
    return np.zeros(shape)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"points": zeros(0, 1, 3)}, r"points has shape \(0, 1, 3\); it must have at least one probe, point and column"),
        ({"points": zeros(2, 1, 4)}, "references has 3 columns; it must have 4, as points has"),
        ({"offsets": np.array([0, 1, 2])[:2]}, r"offsets has length 2; it must be probes \* candidates \+ 1, with 2 probes"),
        ({"offsets": np.array([0, 2, 1, 2, 4])}, r"offsets\[2\] is 1; it must be at least offsets\[1\] = 2"),
        ({"offsets": np.array([0, 1, 2, 3, 5])}, r"offsets\[4\] is 5; it must be 4, the number of rows"),
        ({"offsets": np.array([0, 2, 4, 4, 4])}, "probe 1 has no references; it must have one at least, or `content`"),
        ({"rows": np.array([0, 1, 4, 2])}, r"rows\[2\] is 4; it must be a row of references, 0 … 3"),
        ({"rows": np.array([0, -1, 3, 2])}, r"rows\[1\] is -1; it must be a row of references, 0 … 3"),
        ({"content": zeros(1, 3)}, r"content has shape \(1, 3\); it must have \(2, 3\)"),
        ({"energy": 0.0}, "energy is 0; it must be more than 0"),
        (
            {"prior": GalleryPrior(None, zeros(3, 2), zeros(3, 2), zeros(3))},
            "advantage has length 3; it must have 1, or 2, one for each probe",
        ),
        (
            {"prior": GalleryPrior(None, zeros(1, 3), zeros(1, 2), zeros(1))},
            r"weights has shape \(1, 3\); it must have \(1, 2\), a prior and",
        ),
        ({"prior": GalleryPrior(zeros(1, 2, 4), zeros(1, 2), zeros(1, 2), zeros(1))}, "means has 4 columns; it must have 3, as points has"),
    ],
)
def test_arguments_that_do_not_fit_together_are_named(changes: dict[str, object], message: str) -> None:
    if not kernels.compiled():
        pytest.skip("the twin trusts its arguments")
    problem = Problem(
        points=zeros(2, 1, 3),
        references=zeros(4, 3),
        rows=np.arange(4),
        offsets=np.arange(5),
        prior=GalleryPrior(None, zeros(1, 2), zeros(1, 2), zeros(1)),
    )
    with pytest.raises(ValueError, match=f"^{message}"):
        replace(problem, **changes)()  # type: ignore[arg-type]


def test_arrays_of_another_type_are_refused_not_converted() -> None:
    problem = make(0, [[1, 1]], 7)
    if not kernels.compiled():
        pytest.skip("the twin trusts its arguments")
    for changes in ({"points": problem.points.astype(np.float32)}, {"rows": problem.rows.astype(np.int32)}):
        with pytest.raises(TypeError):
            replace(problem, **changes)()


def test_inputs_are_not_written_to() -> None:
    problem = make(0, [[2, 1], [1, 3]], 33, prior="each")
    for array in (problem.points, problem.references, problem.rows, problem.offsets, *problem.prior):
        assert array is not None
        array.flags.writeable = False
    assert_close(problem(), problem(of=twin.score))


def pointer(array: NDArray[np.generic] | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if array is None else array.ctypes.data)


def emulated(library: Emulation, problem: Problem) -> Scores:
    """The CUDA source, run by the host."""
    error, found = launch_emulated(library, problem)
    assert error == 0
    return found


def launch_emulated(library: Emulation, problem: Problem) -> tuple[int, Scores]:
    """The launcher's error and what was written; `ScoreArgs` of csrc/include/resynth/score.h, field by field."""
    probes, points, dimension = problem.points.shape
    candidates = problem.prior.weights.shape[1]
    found = Scores(np.empty((probes, points, candidates)), np.empty((probes, points)))
    arrays = (problem.points, problem.references, problem.rows, problem.offsets, problem.content, *problem.prior)
    shape = (probes, points, candidates, len(problem.references), len(problem.rows), len(problem.prior.advantage), dimension)

    class Arguments(ctypes.Structure):
        _fields_ = [
            *((f"array{i}", ctypes.c_void_p) for i in range(len(arrays))),
            *((f"size{i}", ctypes.c_int64) for i in range(len(shape))),
            ("energy", ctypes.c_double),
            ("scores", ctypes.c_void_p),
            ("consistency", ctypes.c_void_p),
        ]

    workspace = np.full(library.emulated_workspace(probes, points, candidates, dimension), 0xFF, np.uint8)
    arguments = Arguments(*map(pointer, arrays), *shape, problem.energy, *map(pointer, found))
    return library.emulated_score(ctypes.byref(arguments), workspace), found


@pytest.fixture(scope="session")
def cuda(emulated_cuda: Callable[[str], Emulation]) -> Emulation:
    return emulated_cuda("score")


@pytest.mark.parametrize("every_isa", ["reference"], indirect=True)
@pytest.mark.parametrize("prior", ["none", "one", "each"])
@pytest.mark.parametrize("given_content", [False, True])
def test_the_cuda_source_matches_the_twin(cuda: Emulation, prior: str, given_content: bool) -> None:
    for dimension in (1, 33, 257):
        problem = make(dimension, [[2, 0, 5, 1], [1, 3, 0, 11]], dimension, points=3, prior=prior, given_content=given_content)
        assert_close(emulated(cuda, problem), problem(of=twin.score))


@pytest.mark.parametrize("every_isa", ["reference"], indirect=True)
def test_the_cuda_source_gives_the_same_bits_to_a_probe_alone(cuda: Emulation) -> None:
    problem = make(5, [[2, 0, 5], [1, 3, 2]], 97, points=2, prior="each")
    together, alone = emulated(cuda, problem), emulated(cuda, problem.only(1))
    np.testing.assert_array_equal(together.scores[1], alone.scores[0])
    np.testing.assert_array_equal(together.consistency[1], alone.consistency[0])


@pytest.mark.parametrize("every_isa", ["reference"], indirect=True)
def test_the_cuda_source_makes_nan_of_what_is_out_of_range(cuda: Emulation) -> None:
    problem = make(6, [[2, 1]], 33)
    for changes in (
        {"rows": np.array([0, 99, 1])},
        {"rows": np.array([0, -1, 1])},
        {"offsets": np.array([0, 2, 4])},
        {"offsets": np.array([-1, 2, 3])},
        {"offsets": np.array([0, 0, 0])},
    ):
        found = emulated(cuda, replace(problem, **changes))  # type: ignore[arg-type]
        assert np.isnan(found.scores).any()
        assert np.isnan(found.consistency).all()


@pytest.mark.gpu
@pytest.mark.parametrize("every_isa", ["reference"], indirect=True)
@pytest.mark.parametrize("prior", ["none", "one", "each"])
def test_cuda_matches_the_twin(prior: str) -> None:
    torch = pytest.importorskip("torch")
    from resynth_fast.kernels import _cuda

    for dimension in DIMENSIONS:
        problem = make(dimension, [[2, 0, 5, 1], [1, 3, 0, 11]], dimension, points=3, prior=prior)
        arrays = (problem.points, problem.references, problem.rows, problem.offsets, problem.content, *problem.prior)
        there = [None if array is None else torch.from_numpy(array).cuda() for array in arrays]
        scores = torch.empty((2, 3, 4), dtype=torch.float64, device="cuda")
        consistency = torch.empty((2, 3), dtype=torch.float64, device="cuda")
        workspace = torch.empty(_cuda.score_workspace_bytes(2, 3, 4, dimension), dtype=torch.uint8, device="cuda")
        _cuda.score(*there, problem.energy, scores, consistency, workspace, torch.cuda.current_stream().cuda_stream)
        assert_close(Scores(scores.cpu().numpy(), consistency.cpu().numpy()), problem(of=twin.score))
