"""The CUDA source without a GPU: run under the host compiler over an emulation header, and compiled by nvcc where there is one."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from emulation import INCLUDES, Emulation
from numpy.typing import NDArray

from resynth_fast.kernels.similarity import Reduce, Similarity
from resynth_fast.kernels.twins import similarity as twin

ROOT = Path(__file__).parents[1]
REDUCES: tuple[Reduce, ...] = ("max", "mean")

Kernel = Callable[[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64], Reduce], Similarity]


@pytest.fixture(scope="module")
def emulated(emulated_cuda: Callable[[str], Emulation]) -> Kernel:
    function = emulated_cuda("similarity").emulated_similarity

    def run(probes: NDArray[np.float32], references: NDArray[np.float32], offsets: NDArray[np.int64], reduce: Reduce) -> Similarity:
        count, candidates = len(probes), (len(offsets) - 1) // len(probes)
        result = Similarity(np.empty((count, candidates), np.float32), np.empty(count, np.int64), np.empty(count, np.float32))
        shape = (count, len(references), candidates, probes.shape[1])
        assert function(probes, references, offsets, *shape, REDUCES.index(reduce), *result) == 0
        return result

    return run


def rows(seed: int, count: int, dimension: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)


@pytest.mark.parametrize("reduce", REDUCES)
@pytest.mark.parametrize("dimension", [1, 31, 33, 97])
def test_matches_the_twin(emulated: Kernel, dimension: int, reduce: Reduce) -> None:
    counts = [2, 0, 1, 1, 0, 0, 1, 1, 1, 1, 0, 3]  # more candidates than a block has warps; an empty one; then a second probe
    offsets = np.concatenate([[0], np.cumsum(counts + counts[::-1])]).astype(np.int64)
    probes, references = rows(0, 2, dimension), rows(1, offsets[-1], dimension)
    references[3] = 0
    references[4] *= np.float32(1e30)
    references[5] *= np.float32(1e-40)
    got = emulated(probes, references, offsets, reduce)
    want = twin.similarity(probes, references, offsets, reduce=reduce)
    np.testing.assert_allclose(got.scores, want.scores, rtol=0, atol=2e-6)
    np.testing.assert_allclose(got.margin, want.margin, rtol=0, atol=4e-6)
    if dimension > 1:  # with one dimension every cosine is 1, 0 or -1: ties that rounding may break
        np.testing.assert_array_equal(got.best, want.best)


def test_ties_go_to_the_lowest_candidate(emulated: Kernel) -> None:
    result = emulated(rows(0, 1, 33), np.repeat(rows(1, 1, 33), 40, axis=0), np.concatenate([[0], np.arange(41)]), "max")
    assert result.best == 1
    assert result.margin == 0.0


@pytest.mark.parametrize("reduce", REDUCES)
def test_non_finite_input_gives_nan_and_never_a_label(emulated: Kernel, reduce: Reduce) -> None:
    probes, references, offsets = rows(0, 3, 33), rows(1, 9, 33), np.arange(0, 10, 3)
    references[4, 0] = np.nan  # amid its group: neither the row before nor the row after may hide it
    probes[2, 32] = np.inf
    scores, best, margin = emulated(probes, references, offsets, reduce)
    assert np.isfinite(scores[0]).all()
    assert np.isnan(scores[1:]).all()
    np.testing.assert_array_equal(best, [0, -1, -1])
    np.testing.assert_array_equal(np.isnan(margin), [False, True, True])


def test_invalid_offsets_read_nothing_and_give_nan(emulated: Kernel) -> None:
    for offsets in ([0, 2, 1, 4], [-1, 2, 3, 4], [0, 2, 3, 5]):
        scores, best, margin = emulated(rows(0, 1, 7), rows(1, 4, 7), np.array(offsets), "max")
        assert np.isnan(scores).any()
        assert best == -1
        assert np.isnan(margin)


def test_empty_groups_have_no_label(emulated: Kernel) -> None:
    result = emulated(rows(0, 1, 7), rows(0, 0, 7), np.zeros(3, np.int64), "max")
    assert np.isneginf(result.scores).all()
    assert result.best == -1
    assert result.margin == 0.0


def architectures() -> list[str]:
    """What a build with RESYNTH_CUDA=ON is for, as CMakeLists.txt lists it: ["75", "80", …]."""
    listed = re.search(r'default_archs "([^"]*-real[^"]*)"', (ROOT / "CMakeLists.txt").read_text())
    assert listed
    return re.findall(r"(\d+)-real", listed[1])


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc")
@pytest.mark.parametrize("source", sorted(ROOT.glob("csrc/*/*.cu")), ids=lambda path: path.stem)
def test_nvcc_compiles_for_every_architecture_without_spills(source: Path, tmp_path: Path) -> None:
    wanted = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in architectures()]
    command = ["nvcc", "-std=c++17", *wanted, "-fatbin", "-Xptxas=-v", *INCLUDES[1:], str(source), "-o", str(tmp_path / "kernel.fatbin")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    compiled = re.findall(r"Compiling entry function .* for 'sm_(\d+)'", done.stderr)
    assert set(compiled) == set(architectures())
    spills = [line for line in done.stderr.splitlines() if "spill" in line]
    assert len(spills) >= len(compiled)
    for line in spills:
        assert "0 bytes spill stores, 0 bytes spill loads" in line
