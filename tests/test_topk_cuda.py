"""The CUDA top-k without a GPU, under the emulation header; and on a GPU where there is one."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from emulation import Emulation
from numpy.typing import NDArray
from test_topk import STORAGES, Problem, make

from resynth_fast.kernels.topk import Rows, TopK
from resynth_fast.kernels.twins import topk as twin

Kernel = Callable[..., TopK]


@pytest.fixture(scope="module")
def emulated(emulated_cuda: Callable[[str], Emulation]) -> Kernel:
    library = emulated_cuda("topk")

    def run(
        queries: NDArray[np.float32],
        blocks: list[Rows],
        k: int,
        *,
        offsets: NDArray[np.float32] | None = None,
        weights: NDArray[np.float32] | None = None,
        groups: NDArray[np.int32] | None = None,
        group_count: int = 1,
    ) -> TopK:
        sizes = len(queries), len(blocks[0]), group_count, k
        result = TopK(np.empty((len(queries), group_count, k), np.float32), np.empty((len(queries), group_count, k), np.int64))
        workspace = np.full(library.emulated_topk_workspace(*sizes) + 256, 0xFF, np.uint8)
        aligned = workspace[-workspace.ctypes.data % 256 :]
        rows = (ctypes.c_void_p * len(blocks))(*(block.ctypes.data for block in blocks))
        columns = (ctypes.c_int64 * len(blocks))(*(block.shape[1] for block in blocks))
        gallery = rows, columns, len(blocks), STORAGES.index(blocks[0].dtype.name)
        assert library.emulated_topk(queries, *gallery, offsets, weights, groups, *sizes, *result, aligned) == 0
        return result

    return run


def assert_matches_twin(problem: Problem, kernel: Kernel) -> None:
    got, want = problem(kernel), problem(twin.topk)
    np.testing.assert_allclose(got.scores, want.scores, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(got.indices, want.indices)


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize(("dimension", "k"), [(1, 3), (31, 1), (33, 40), (64, 33), (97, 7)])
def test_matches_the_twin(emulated: Kernel, dimension: int, k: int, storage: str) -> None:
    assert_matches_twin(make(0, 2, 50, dimension, k, storage), emulated)


@pytest.mark.parametrize("storage", STORAGES)
def test_groups_blocks_offsets_and_weights_match_the_twin(emulated: Kernel, storage: str) -> None:
    assert_matches_twin(make(0, 3, 70, 72, 5, storage, blocks=3, groups=4, scored=True), emulated)


def test_a_query_and_a_group_alone_give_the_same_bits(emulated: Kernel) -> None:
    problem = make(1, 2, 40, 33, 4, groups=2, scored=True)
    together = problem(emulated)
    assert problem.groups is not None
    for q in range(2):
        for group in range(2):
            groups = np.where(problem.groups == group, 0, -1).astype(np.int32)
            alone = replace(problem.of_query(q), groups=groups, group_count=1)(emulated)
            for got, want in zip(alone, together, strict=True):
                np.testing.assert_array_equal(got[0, 0], want[q, group])


def test_ties_go_to_the_lowest_index(emulated: Kernel) -> None:
    problem = make(0, 1, 70, 33, 35)
    problem.blocks[0][:] = problem.blocks[0][0]
    np.testing.assert_array_equal(problem(emulated).indices[0, 0], np.arange(35))


@pytest.mark.parametrize("row", [0, 7, 8, 30])
def test_a_non_finite_row_gives_no_index_in_its_group(emulated: Kernel, row: int) -> None:
    problem = replace(make(0, 2, 31, 33, 3), groups=(np.arange(31) == row).astype(np.int32), group_count=2)
    problem.blocks[0][row, 32] = np.inf
    scores, indices = problem(emulated)
    assert np.isnan(scores[:, 1]).all()
    assert (indices[:, 1] == -1).all()
    assert (indices[:, 0] >= 0).all()


def test_a_non_finite_query_gives_no_index_and_the_others_do(emulated: Kernel) -> None:
    problem = make(0, 2, 20, 33, 3)
    problem.queries[0, 0] = np.nan
    scores, indices = problem(emulated)
    assert np.isnan(scores[0]).all()
    assert (indices[0] == -1).all()
    assert (indices[1] >= 0).all()


def test_a_row_that_is_left_out_may_hold_anything(emulated: Kernel) -> None:
    problem = replace(make(0, 1, 20, 33, 3), groups=np.where(np.arange(20) == 4, -1, 0).astype(np.int32))
    problem.blocks[0][4] = np.nan
    assert np.isfinite(problem(emulated).scores).all()


def test_a_sum_that_overflows_float_is_computed_again_in_double(emulated: Kernel) -> None:
    queries, rows = np.ones((1, 33), np.float32), np.zeros((2, 33), np.float32)
    queries[0, [0, 32]] = 1e30  # summed by one lane, where they cancel
    rows[0, [0, 4, 32]] = 1e30, 2.0, -1e30
    rows[1, 4] = 1.0
    np.testing.assert_array_equal(Problem(queries=queries, blocks=[rows], k=2)(emulated).scores, [[[2.0, 1.0]]])


@pytest.mark.gpu
@pytest.mark.parametrize("storage", STORAGES)
def test_cuda_matches_the_twin_and_can_be_captured(storage: str) -> None:
    torch = pytest.importorskip("torch")
    from resynth_fast.kernels import _cuda

    for dimension, count, k in ((33, 5_000, 100), (768, 20_000, 10)):
        problem = make(0, 3, count, dimension, k, storage, blocks=2, groups=3, scored=True)
        on_device = [torch.from_numpy(problem.queries).cuda(), [torch.from_numpy(block).cuda() for block in problem.blocks]]
        on_device += [torch.from_numpy(array).cuda() for array in (problem.offsets, problem.weights, problem.groups)]
        scores, indices = (torch.empty((3, 3, k), device="cuda", dtype=dtype) for dtype in (torch.float32, torch.int64))
        workspace = torch.empty(_cuda.topk_workspace_bytes(3, count, 3, k), dtype=torch.uint8, device="cuda")
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            _cuda.topk(*on_device, scores, indices, workspace, torch.cuda.current_stream().cuda_stream)
        graph.replay()
        want = problem(twin.topk)
        np.testing.assert_allclose(scores.cpu(), want.scores, rtol=4e-6, atol=1e-4)
        assert (indices.cpu().numpy() == want.indices).mean() > 0.98  # near ties may swap
