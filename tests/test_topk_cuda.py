"""The CUDA top-k without a GPU, under the emulation header; and on a GPU where there is one."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from resynth_fast.kernels import twins
from resynth_fast.kernels.topk import Metric, TopK, as_bfloat16

ROOT = Path(__file__).parents[1]
METRICS: tuple[Metric, ...] = ("dot", "cosine")

Gallery = NDArray[np.float32] | NDArray[np.uint16]
Kernel = Callable[[NDArray[np.float32], Gallery, int, Metric], TopK]


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> Kernel:
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++")
    library = tmp_path_factory.mktemp("emulation") / "topk.so"
    unsanitized = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}  # the compiler itself
    source = ROOT / "tests/cuda_emulation/topk.cpp"
    flags = ["-std=c++20", "-O1", "-shared", "-fPIC", "-pthread", *os.environ.get("RESYNTH_EMULATION_FLAGS", "").split()]
    includes = [f"-I{source.parent}", f"-I{ROOT / 'csrc'}", f"-I{ROOT / 'csrc/include'}"]
    subprocess.run([compiler, *flags, *includes, source, "-o", library], check=True, env=unsanitized)
    module = ctypes.CDLL(str(library))
    module.emulated_topk_workspace.restype = ctypes.c_int64

    def run(queries: NDArray[np.float32], gallery: Gallery, k: int, metric: Metric) -> TopK:
        shape = (len(queries), len(gallery), queries.shape[1], k)
        result = TopK(np.empty((len(queries), k), np.float32), np.empty((len(queries), k), np.int64))
        size = module.emulated_topk_workspace(*(ctypes.c_int64(n) for n in (len(queries), len(gallery), k)))
        workspace = np.empty(size // 8 + 1, np.int64)
        inputs, outputs = ([ctypes.c_void_p(a.ctypes.data) for a in arrays] for arrays in ((queries, gallery), (*result, workspace)))
        storage = int(gallery.dtype == np.uint16)
        assert module.emulated_topk(*inputs, storage, METRICS.index(metric), *map(ctypes.c_int64, shape), *outputs) == 0
        return result

    return run


def rows(seed: int, count: int, dimension: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("storage", ["float32", "bfloat16"])
@pytest.mark.parametrize(("dimension", "k"), [(1, 3), (31, 1), (33, 40), (64, 33), (97, 7)])
def test_matches_the_twin(emulated: Kernel, dimension: int, k: int, storage: str, metric: Metric) -> None:
    queries, gallery = rows(0, 2, dimension), rows(1, 50, dimension)
    if metric == "cosine":
        gallery[3] = 0
        gallery[4] *= np.float32(1e30)
        gallery[5] *= np.float32(1e-40)
    stored = as_bfloat16(gallery) if storage == "bfloat16" else gallery
    got, want = emulated(queries, stored, k, metric), twins.topk(queries, stored, k, metric=metric)
    np.testing.assert_allclose(got.scores, want.scores, rtol=4e-6, atol=4e-6)
    if dimension > 1:  # with one dimension every cosine is 1, 0 or -1: ties that rounding may break
        np.testing.assert_array_equal(got.indices, want.indices)


def test_ties_go_to_the_lowest_index(emulated: Kernel) -> None:
    result = emulated(rows(0, 1, 33), np.repeat(rows(1, 1, 33), 70, axis=0), 35, "cosine")
    np.testing.assert_array_equal(result.indices[0], np.arange(35))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("row", [0, 7, 8, 30])
def test_a_non_finite_row_gives_no_index(emulated: Kernel, row: int, metric: Metric) -> None:
    gallery = rows(1, 31, 33)
    gallery[row, 32] = np.inf
    scores, indices = emulated(rows(0, 2, 33), gallery, 3, metric)
    assert np.isnan(scores).all()
    assert (indices == -1).all()


def test_a_non_finite_query_gives_no_index_and_the_others_do(emulated: Kernel) -> None:
    queries = rows(0, 2, 33)
    queries[0, 0] = np.nan
    scores, indices = emulated(queries, rows(1, 20, 33), 3, "dot")
    assert np.isnan(scores[0]).all()
    assert (indices[0] == -1).all()
    assert (indices[1] >= 0).all()


@pytest.mark.gpu
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("storage", ["float32", "bfloat16"])
def test_cuda_matches_the_twin_and_can_be_captured(storage: str, metric: Metric) -> None:
    torch = pytest.importorskip("torch")
    from resynth_fast.kernels import _cuda

    for dimension, count, k in ((33, 5_000, 100), (768, 20_000, 10)):
        queries, gallery = rows(0, 3, dimension), rows(1, count, dimension)
        stored = as_bfloat16(gallery) if storage == "bfloat16" else gallery
        on_device = [torch.from_numpy(array).cuda() for array in (queries, stored)]
        scores, indices = torch.empty((3, k), device="cuda"), torch.empty((3, k), dtype=torch.int64, device="cuda")
        workspace = torch.empty(_cuda.topk_workspace(3, count, k), dtype=torch.uint8, device="cuda")
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            _cuda.topk(*on_device, metric, scores, indices, workspace, torch.cuda.current_stream().cuda_stream)
        graph.replay()
        want = twins.topk(queries, stored, k, metric=metric)
        np.testing.assert_allclose(scores.cpu(), want.scores, rtol=4e-6, atol=4e-5)
        assert (indices.cpu().numpy() == want.indices).mean() > 0.98  # near ties may swap
