"""The step kernel, in every form that this machine can run, against its float64 twin and its own promises."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from emulation import Emulation
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from resynth_fast.kernels import _native
from resynth_fast.kernels.step import GUIDANCE, HISTORY, INPUT_SCALE, NOISE, OUTPUTS, SAMPLES, WIDTH, step
from resynth_fast.kernels.twins import step as twin

SIZES = (0, 1, 7, 31, 33, 65, 97)
EPSILON = 2.0**-24

Floats = NDArray[np.float32]

pytestmark = pytest.mark.usefixtures("every_isa")


@dataclass(frozen=True, kw_only=True)
class Problem:
    weights: Floats
    samples: list[Floats]
    outputs: list[Floats]
    unconditional: Floats | None = None
    noise: Floats | None = None
    keep: bool = True

    def __call__(self, of: Callable[..., None] = step) -> dict[str, Floats]:
        written = {name: np.full_like(self.samples[0], np.nan) for name in ("out", "guided", "scaled") if self.keep or name == "out"}
        of(self.weights, self.samples, self.outputs, unconditional=self.unconditional, noise=self.noise, **written)
        return written

    def row(self, r: int) -> Problem:
        def one(array: Floats | None) -> Floats | None:
            return None if array is None else array[r : r + 1]

        samples, outputs = ([array[r : r + 1] for array in arrays] for arrays in (self.samples, self.outputs))
        return replace(
            self,
            weights=self.weights[r : r + 1],
            samples=samples,
            outputs=outputs,
            unconditional=one(self.unconditional),
            noise=one(self.noise),
        )


def make(seed: int, rows: int, size: int, samples: int, outputs: int, guided: bool, noisy: bool, keep: bool) -> Problem:
    """Rows at different steps: each with weights of its own, some of them zero."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> Floats:
        return rng.standard_normal(shape, dtype=np.float32)

    weights = draw(rows, WIDTH) * (rng.random((rows, WIDTH)) < 0.8)
    weights[:, SAMPLES][:, samples:] = 0
    weights[:, OUTPUTS][:, outputs:] = 0
    weights[:, NOISE] *= noisy
    weights[:, GUIDANCE] = rng.uniform(0, 12, rows)
    arrays = [draw(rows, size) for _ in range(samples + outputs + 2)]
    return Problem(
        weights=weights,
        samples=arrays[:samples],
        outputs=arrays[samples : samples + outputs],
        unconditional=arrays[-1] if guided else None,
        noise=arrays[-2] if noisy else None,
        keep=keep,
    )


problems = st.builds(
    make,
    st.integers(0, 2**32 - 1),
    st.integers(0, 3),
    st.sampled_from(SIZES),
    st.integers(1, HISTORY),
    st.integers(1, HISTORY),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)


def assert_matches_twin(problem: Problem, of: Callable[..., None] = step) -> None:
    """Within a few roundings of the largest intermediate value of each row."""
    got, want = problem(of), problem(twin.step)
    arrays = [*problem.samples, *problem.outputs, *(a for a in (problem.unconditional, problem.noise) if a is not None)]
    largest = np.max([np.abs(array) for array in arrays], axis=0)
    scale = largest * (1 + np.abs(problem.weights).max(axis=1, initial=0, keepdims=True)) ** 3
    for name, values in want.items():
        assert (np.abs(got[name].astype(np.float64) - values) <= 16 * EPSILON * scale).all(), name


@given(problems)
def test_matches_the_twin(problem: Problem) -> None:
    assert_matches_twin(problem)


def test_every_instruction_set_gives_the_same_bits(every_isa: str) -> None:
    if every_isa == "reference":
        pytest.skip("the twin rounds otherwise")
    for seed, size in enumerate((*SIZES, 1000)):
        problem = make(seed, 3, size, 3, 3, True, True, True)
        found = problem()
        _native.force_isa("serial")
        plain = problem()
        _native.force_isa(every_isa)
        for name, values in found.items():
            assert values.tobytes() == plain[name].tobytes()


@given(problems)
def test_a_row_alone_gives_the_same_bits(problem: Problem) -> None:
    together = problem()
    for r in range(len(problem.weights)):
        for name, values in problem.row(r)().items():
            assert values.tobytes() == together[name][r : r + 1].tobytes()


@given(problems)
def test_an_output_may_be_an_input(problem: Problem) -> None:
    expected = replace(problem, keep=True)()
    out, guided = problem.samples[-1], problem.outputs[-1]  # over the oldest, as a walk does
    step(
        problem.weights, problem.samples, problem.outputs, unconditional=problem.unconditional, noise=problem.noise, out=out, guided=guided
    )
    assert out.tobytes() == expected["out"].tobytes()
    assert guided.tobytes() == expected["guided"].tobytes()


@pytest.mark.parametrize("size", SIZES)
def test_an_array_without_weight_is_not_read(size: int) -> None:
    problem = make(size, 2, size, HISTORY, HISTORY, True, True, True)
    problem.weights[0, SAMPLES] = problem.weights[0, OUTPUTS] = (0.5, 0, 0, 0)
    problem.weights[0, NOISE] = 0
    for array in (*problem.samples[1:], *problem.outputs[1:], problem.noise):
        assert array is not None
        array[0] = np.nan
    for values in problem().values():
        assert np.isfinite(values).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize("size", SIZES[1:])
def test_values_that_are_not_finite_stay_in_their_element(size: int, value: float) -> None:
    for kind in ("samples", "outputs", "unconditional", "noise"):
        problem = make(0, 2, size, HISTORY, HISTORY, True, True, True)
        problem.weights[:] = 0.5
        array = getattr(problem, kind)
        (array[0] if isinstance(array, list) else array)[1, size - 1] = value
        bad = ~np.isfinite(problem()["out"])
        assert bad[1, size - 1]
        assert bad.sum() == 1


@pytest.mark.parametrize("magnitude", [1e-45, 1e-39, 1e-30, 1e30, 1e37])
def test_denormal_and_huge_values_keep_their_digits(magnitude: float) -> None:
    problem = make(1, 2, 97, 2, 2, True, True, False)
    for array in (*problem.samples, *problem.outputs, problem.unconditional, problem.noise):
        assert array is not None
        array[:] = np.sign(array) * np.float32(magnitude)
    problem.weights[:] = np.sign(problem.weights)  # no product has more digits than a denormal holds
    got, want = problem()["out"], problem(twin.step)["out"]
    np.testing.assert_allclose(got, want, rtol=1e-6, atol=0)
    assert np.abs(got).max() > 0


def test_too_large_overflows_to_infinity() -> None:
    problem = Problem(weights=weights(samples=(2,)), samples=[ones(1, 9) * np.float32(3e38)], outputs=[ones(1, 9)], keep=False)
    assert np.isposinf(problem()["out"]).all()


def ones(*shape: int) -> Floats:
    return np.ones(shape, np.float32)


def weights(
    rows: int = 1, samples: tuple[float, ...] = (1.0,), outputs: tuple[float, ...] = (1.0,), noise: float = 0.0, guidance: float = 0.0
) -> Floats:
    found = np.zeros((rows, WIDTH), np.float32)
    found[:, SAMPLES][:, : len(samples)], found[:, OUTPUTS][:, : len(outputs)] = samples, outputs
    found[:, NOISE], found[:, GUIDANCE], found[:, INPUT_SCALE] = noise, guidance, 2
    return found


def test_a_step_is_the_stated_weighted_sum() -> None:
    out, guided, scaled = ones(1, 2), ones(1, 2), ones(1, 2)
    row = weights(samples=(2, 3), outputs=(5, 7), noise=11, guidance=4)
    arrays = [ones(1, 2) * np.float32(value) for value in (1, 10, 100, 1000, 97, 0.5)]
    step(row, arrays[:2], arrays[2:4], unconditional=arrays[4], noise=arrays[5], out=out, guided=guided, scaled=scaled)
    assert (guided == 97 + 4 * 3).all()
    assert (out == 2 * 1 + 3 * 10 + 5 * 109 + 7 * 1000 + 11 * 0.5).all()
    assert (scaled == 2 * out).all()


def test_rows_may_have_any_shape() -> None:
    x, m = ones(2, 4, 3, 5), ones(2, 4, 3, 5)
    step(weights(2), [x], [m], out=x)
    assert (x == 2).all()


def test_torch_tensors_pass_without_a_copy(every_isa: str) -> None:
    torch = pytest.importorskip("torch")
    if every_isa == "reference":
        pytest.skip("the twin takes NumPy arrays")
    x, m = torch.ones(2, 4, 3), torch.full((2, 4, 3), 5.0)
    step(weights(2), [x], [m], out=x)
    assert (x == 6).all()


@dataclass
class Call:
    """A call that is right, but for what a test changes."""

    weights: object = field(default_factory=lambda: weights(2))
    samples: object = field(default_factory=lambda: [ones(2, 3)])
    outputs: object = field(default_factory=lambda: [ones(2, 3)])
    out: object = field(default_factory=lambda: ones(2, 3))
    unconditional: object = None
    noise: object = None
    guided: object = None
    scaled: object = None

    def __call__(self) -> None:
        step(**self.__dict__)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"samples": []}, "samples has 0 arrays; it must have 1 to 4"),
        ({"outputs": [ones(2, 3)] * 5}, "outputs has 5 arrays; it must have 1 to 4"),
        ({"samples": [ones(2, 3), ones(2, 4)]}, r"samples\[1\] has shape \(2, 4\); it must have \(2, 3\), as out has"),
        ({"noise": ones(3, 3)}, r"noise has shape \(3, 3\); it must have \(2, 3\), as out has"),
        ({"scaled": ones(1, 3)}, r"scaled has shape \(1, 3\); it must have \(2, 3\), as out has"),
        ({"weights": weights(3)}, r"weights has shape \(3, 11\); it must have \(2, 11\)"),
        ({"weights": ones(2, 10)}, r"weights has shape \(2, 10\); it must have \(2, 11\)"),
        ({"weights": weights(2, samples=(1, 0.5))}, r"weights\[0, 1\] is 0.5, but there is no samples\[1\] that it could weight"),
        ({"weights": weights(2, outputs=(1, 0, 0, 2))}, r"weights\[0, 7\] is 2, but there is no outputs\[3\] that it could weight"),
        ({"weights": weights(2, noise=0.25)}, r"weights\[0, 8\] is 0.25, but there is no noise that it could weight"),
    ],
)
def test_arguments_that_do_not_fit_together_are_named(changed: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        Call(**changed)()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"weights": weights(2).astype(np.float64)}, "weights is a C-contiguous 2-D float64 array"),
        ({"samples": [ones(2, 3), ones(2, 3).astype(np.float16)]}, r"samples\[1\] is a C-contiguous 2-D float16 array"),
        ({"outputs": [ones(4, 3)[::2]]}, r"outputs\[0\] is a strided 2-D float32 array"),
        ({"noise": [1.0]}, "noise is a list; it must be a numpy.ndarray"),
        ({"samples": 3}, "samples is a int; it must be a list of arrays"),
    ],
)
def test_an_array_of_another_type_is_refused_not_converted(changed: dict[str, object], message: str) -> None:
    with pytest.raises(TypeError, match=f"^{message}"):
        Call(**changed)()


def test_a_read_only_output_is_refused() -> None:
    fixed = ones(2, 3)
    fixed.flags.writeable = False
    Call(samples=[fixed], outputs=[fixed])()
    with pytest.raises(TypeError, match=r"^guided is read-only; it is written to$"):
        Call(guided=fixed)()


def test_arrays_that_overlap_are_named() -> None:
    memory = ones(5, 3)
    with pytest.raises(ValueError, match=r"^out overlaps samples\[0\]; it must be the same array or share no memory with it$"):
        Call(samples=[memory[:2]], out=memory[1:3])()
    with pytest.raises(ValueError, match=r"^out overlaps scaled; both are written and must not share memory$"):
        Call(out=memory[:2], scaled=memory[:2])()
    Call(samples=[memory[:2]], out=memory[2:4])()


@pytest.fixture(scope="session")
def emulated(emulated_cuda: Callable[[str], Emulation]) -> Callable[..., None]:
    function = emulated_cuda("step").emulated_step

    def run(
        weights: Floats,
        samples: list[Floats],
        outputs: list[Floats],
        *,
        out: Floats,
        unconditional: Floats | None = None,
        noise: Floats | None = None,
        guided: Floats | None = None,
        scaled: Floats | None = None,
    ) -> None:
        histories = ([*arrays, *[None] * (HISTORY - len(arrays))] for arrays in (samples, outputs))
        arrays = [*(array for history in histories for array in history), unconditional, noise, out, guided, scaled]
        pointers = (ctypes.c_void_p * len(arrays))(*(None if array is None else array.ctypes.data for array in arrays))
        rows = len(out)
        elements = out.size // rows if rows else 0
        assert function(weights, rows, elements, pointers) == 0

    return run


@pytest.mark.parametrize("size", [0, 1, 33, 97, 256, 1025])
def test_emulated_cuda_gives_the_same_bits(emulated: Callable[..., None], every_isa: str, size: int) -> None:
    if every_isa == "reference":
        pytest.skip("the twin rounds otherwise")
    for guided, noisy, keep in ((True, True, True), (False, False, False)):
        problem = make(size, 2, size, 3, 2, guided, noisy, keep)
        found, want = problem(emulated), problem()
        for name, values in want.items():
            assert found[name].tobytes() == values.tobytes()


def test_emulated_cuda_reads_the_weight_of_an_absent_array_as_zero(emulated: Callable[..., None], every_isa: str) -> None:
    if every_isa == "reference":
        pytest.skip("the twin rounds otherwise")
    problem = make(0, 2, 33, 1, 1, False, False, False)
    want = problem()["out"]
    problem.weights[:, SAMPLES][:, 1:] = problem.weights[:, OUTPUTS][:, 1:] = problem.weights[:, [NOISE]] = 3.0
    assert problem(emulated)["out"].tobytes() == want.tobytes()


@pytest.mark.gpu
def test_cuda_gives_the_same_bits(every_isa: str) -> None:
    torch = pytest.importorskip("torch")
    from resynth_fast.kernels import _cuda

    if every_isa == "reference":
        pytest.skip("the twin rounds otherwise")
    for size in (1, 33, 1025, 65536):
        problem = make(size, 3, size, 3, 2, True, True, True)
        to = lambda array: torch.from_numpy(array).cuda()  # noqa: E731
        written = {name: torch.empty((3, size), device="cuda") for name in ("out", "guided", "scaled")}
        stream = torch.cuda.current_stream().cuda_stream
        samples, outputs = [to(a) for a in problem.samples], [to(a) for a in problem.outputs]
        _cuda.step(to(problem.weights), samples, outputs, to(problem.unconditional), to(problem.noise), *written.values(), stream)
        for name, values in problem().items():
            assert written[name].cpu().numpy().tobytes() == values.tobytes()
