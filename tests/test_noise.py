"""Noise belongs to the seed alone: known answers, distribution, and the same bits on every instruction set and on CUDA."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from emulation import Emulation
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from resynth_fast import kernels
from resynth_fast.kernels import _native
from resynth_fast.kernels.noise import normal_rows, normals
from resynth_fast.kernels.twins import noise as twin

SIZES = (0, 1, 3, 4, 7, 31, 32, 33, 63, 64, 65, 97, 1000)
TOLERANCE = {"rtol": 4e-7, "atol": 1e-9}  # of the kernels' float32 arithmetic to the float64 twin, rounded

seeds_of = st.integers(0, 2**64 - 1)
calls_of = st.integers(0, 2**32 - 1)
backends = pytest.mark.parametrize("backend", [*_native.supported_isas(), "reference"], indirect=True)


@pytest.fixture(autouse=True)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The instruction set that the test asks for, or the best; "reference" is a build without the extension."""
    before, wanted = _native.isa(), getattr(request, "param", _native.isa())
    if wanted == "reference":
        monkeypatch.setattr(kernels, "native", None)
    else:
        _native.force_isa(wanted)
    yield wanted
    _native.force_isa(before)


def twin_noise(seeds: list[int], calls: list[int], size: int) -> NDArray[np.float32]:
    out = np.empty((len(seeds), size), np.float32)
    twin.noise(np.array(seeds, np.uint64), np.array(calls, np.uint32), out)
    return out


@pytest.mark.parametrize(
    ("seed", "counter", "expected"),
    [  # known answers of the Random123 distribution for philox4x32-10
        (0, (0, 0, 0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (2**64 - 1, (0xFFFFFFFF,) * 4, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x299F31D0 << 32) | 0xA4093822,
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_the_twins_philox_gives_the_known_answers(seed: int, counter: tuple[int, ...], expected: tuple[int, ...]) -> None:
    assert tuple(twin.philox(np.array([seed], np.uint64), np.array([counter], np.uint64))[0]) == expected


@backends
def test_first_normals_are_box_and_muller_of_the_known_answer(backend: str) -> None:
    words = np.array([0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8], np.float64)
    radius, angle = np.sqrt(-2 * np.log((words[::2] + 1) / 2**32)), 2 * np.pi * words[1::2] / 2**32
    expected = [radius[0] * np.cos(angle[0]), radius[0] * np.sin(angle[0]), radius[1] * np.cos(angle[1]), radius[1] * np.sin(angle[1])]
    np.testing.assert_allclose(normals(0, 0, (4,)), expected, **TOLERANCE)


@given(st.lists(st.tuples(seeds_of, calls_of), min_size=1, max_size=4), st.sampled_from(SIZES))
def test_every_instruction_set_gives_the_same_bits_near_the_twins(rows: list[tuple[int, int]], size: int) -> None:
    seeds, calls = map(list, zip(*rows, strict=True))
    found = {}
    for isa in _native.supported_isas():
        _native.force_isa(isa)
        found[isa] = normal_rows(seeds, calls, (size,))
        assert found[isa].tobytes() == found["serial"].tobytes()
    np.testing.assert_allclose(found["serial"], twin_noise(seeds, calls, size), **TOLERANCE)


@pytest.fixture(scope="session")
def emulated(emulated_cuda: Callable[[str], Emulation]) -> Callable[[list[int], list[int], int], NDArray[np.float32]]:
    function = emulated_cuda("noise").emulated_noise

    def run(seeds: list[int], calls: list[int], size: int) -> NDArray[np.float32]:
        keys, counters, out = np.array(seeds, np.uint64), np.array(calls, np.uint32), np.full((len(seeds), size), np.nan, np.float32)
        assert function(keys, counters, len(seeds), size, out) == 0
        return out

    return run


@pytest.mark.parametrize("size", [0, 1, 31, 97, 512, 1030])
def test_emulated_cuda_gives_the_same_bits(emulated: Callable[..., NDArray[np.float32]], size: int) -> None:
    seeds, calls = [5, 2**64 - 1, 2**40 + 7], [0, 3, 2**32 - 1]
    assert emulated(seeds, calls, size).tobytes() == normal_rows(seeds, calls, (size,)).tobytes()


@pytest.mark.gpu
@pytest.mark.parametrize("size", [1, 31, 97, 512, 65536])
def test_cuda_gives_the_same_bits(size: int) -> None:
    torch = pytest.importorskip("torch")
    from resynth_fast.kernels import _cuda

    seeds, calls = [5, 2**64 - 1, 2**40 + 7], [0, 3, 2**32 - 1]
    out = torch.empty((3, size), device="cuda")
    keys, counters = torch.from_numpy(np.array(seeds, np.uint64)).cuda(), torch.from_numpy(np.array(calls, np.uint32)).cuda()
    _cuda.noise(keys, counters, out, torch.cuda.current_stream().cuda_stream)
    assert out.cpu().numpy().tobytes() == normal_rows(seeds, calls, (size,)).tobytes()


@backends
def test_a_row_depends_on_its_own_seed_and_call_alone(backend: str) -> None:
    together = normal_rows([9, 1, 9], [3, 3, 4], (2, 31))
    for row, (seed, call) in zip(together, ((9, 3), (1, 3), (9, 4)), strict=True):
        assert (row == normals(seed, call, (2, 31))).all()
    assert (together[0] != together[1]).all()
    assert (together[0] != together[2]).all()


@backends
def test_a_shorter_draw_is_the_beginning_of_a_longer_one(backend: str) -> None:
    longest = normals(9, 3, (97,))
    for size in SIZES[:-1]:
        assert (normals(9, 3, (size,)) == longest[:size]).all()


@backends
def test_distribution_is_standard_normal(backend: str) -> None:
    drawn = normal_rows(range(20), [0] * 20, (4, 64, 64))
    x = drawn.ravel().astype(np.float64)
    error = x.size**-0.5
    for power, moment in ((1, 0), (2, 1), (3, 0), (4, 3), (6, 15)):
        variance = np.prod(np.arange(2 * power - 1, 0, -2)) - moment**2
        assert abs((x**power).mean() - moment) < 4 * error * variance**0.5
    assert stats.kstest(x, "norm").pvalue > 0.001
    assert np.abs(x).max() > 4.2  # a tail: missing from 330,000 draws with probability 1e-4
    for lag in (1, 2, 3, 4, 32):
        assert abs((x[:-lag] * x[lag:]).mean()) < 4 * error
    assert abs(np.corrcoef(drawn.reshape(20, -1)) - np.eye(20)).max() < 5 * (4 * 64 * 64) ** -0.5


@pytest.mark.parametrize(
    ("seeds", "calls", "message"),
    [
        ([0, -1], [0, 0], r"seeds\[1\] is -1; it must be in 0 … 18446744073709551615"),
        ([2**64], [0], r"seeds\[0\] is 18446744073709551616; it must be in 0 …"),
        ([0], [2**32], r"calls\[0\] is 4294967296; it must be in 0 … 4294967295"),
        ([0, 1], [0], "calls has length 1; it must have 2, one for each of seeds"),
    ],
)
@backends
def test_a_wrong_seed_or_call_is_named(backend: str, seeds: list[int], calls: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        normal_rows(seeds, calls, (3,))


def test_the_kernel_names_arguments_that_do_not_fit() -> None:
    seeds, calls, out = np.zeros(2, np.uint64), np.zeros(2, np.uint32), np.zeros((2, 3), np.float32)
    for arguments, message in (
        ((seeds[:1], calls, out), "seeds has length 1; it must have 2"),
        ((seeds, calls[:1], out), "calls has length 1; it must have 2"),
    ):
        with pytest.raises(ValueError, match=f"^{message}$"):
            _native.noise(*arguments)
    for arguments in ((seeds.astype(np.int64), calls, out), (seeds, calls, out[:, ::2]), (seeds, calls, out.astype(np.float64))):
        with pytest.raises(TypeError):
            _native.noise(*arguments)
