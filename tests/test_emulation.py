"""The emulation header notices what a GPU would refuse or leave undefined; every kernel that we have is run under it."""

from __future__ import annotations

import ctypes
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from emulation import CSRC, HERE, Emulation, compile_emulation
from test_score import launch_emulated, make

INVALID_VALUE, INVALID_CONFIGURATION, LAUNCH_FAILURE, LAUNCH_TIMEOUT, MISALIGNED_ADDRESS = 1, 9, 719, 702, 716


def floats(*shape: int) -> Any:
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def pixels(*shape: int) -> Any:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def texture(library: Emulation) -> int:
    workspace, features = pixels(library.emulated_workspace(1, 32)), floats(10_000)
    return int(library.emulated_texture(pixels(32, 32, 3), 1, 32, workspace, features))


def topk(library: Emulation) -> int:
    block, queries, scores = floats(50, 33), floats(2, 33), floats(2, 1, 3)
    workspace = pixels(library.emulated_topk_workspace(2, 50, 1, 3) + 256)
    aligned = workspace[-workspace.ctypes.data % 256 :]
    rows, columns = (ctypes.c_void_p * 1)(block.ctypes.data), np.array([33])
    return int(library.emulated_topk(queries, rows, columns, 1, 0, None, None, None, 2, 50, 1, 3, scores, np.zeros(6, int), aligned))


def similarity(library: Emulation) -> int:
    offsets, best = np.array([0, 2, 5]), np.zeros(1, int)
    return int(library.emulated_similarity(floats(1, 33), floats(5, 33), offsets, 1, 5, 2, 33, 0, floats(1, 2), best, floats(1)))


def step(library: Emulation) -> int:
    arrays = [floats(2, 33) for _ in range(13)]
    return int(library.emulated_step(floats(2, 11), 2, 33, (ctypes.c_void_p * 13)(*(array.ctypes.data for array in arrays))))


CALLS: dict[str, Callable[[Emulation], int]] = {
    "emulated_faults": lambda finite: finite.emulated_faults(floats(33), 33, np.zeros(1, np.int32)),
    "emulated_noise": lambda noise: noise.emulated_noise(np.zeros(2, np.uint64), np.zeros(2, np.uint32), 2, 33, floats(2, 33)),
    "emulated_resize": lambda preprocess: preprocess.emulated_resize(pixels(9, 9, 3), 27, 9, 7, 2, pixels(7, 7, 3)),
    "emulated_fit": lambda preprocess: preprocess.emulated_fit(pixels(9, 9, 3), 27, 9, 7, 2, floats(3, 7, 7)),
    "emulated_levels": lambda preprocess: preprocess.emulated_levels(floats(2, 3, 7, 7), 2, 7, 7, pixels(2, 7, 7, 3)),
    "emulated_jpeg": lambda preprocess: preprocess.emulated_jpeg(pixels(9, 9, 3), 9, 9, 75, pixels(9, 9, 3)),
    "emulated_score": lambda library: launch_emulated(library, make(0, [[2, 0, 5, 1], [1, 3, 0, 11]], 33, points=3))[0],
    "emulated_similarity": similarity,
    "emulated_step": step,
    "emulated_texture": texture,
    "emulated_topk": topk,
}
"""A small call of every function that launches kernels; `test_every_kernel_is_emulated` says which is missing."""


def launchers() -> list[tuple[str, str]]:
    """Kernel and function of every emulated launcher, by their sources: ("finite", "emulated_faults"), …"""
    found = re.compile(r'extern "C" int64_t (emulated_\w+)\(')
    sources = {source.stem: HERE / f"{source.stem}.cpp" for source in sorted(CSRC.glob("*/*.cu"))}
    return [(kernel, name) for kernel, source in sources.items() for name in found.findall(source.read_text()) if "workspace" not in name]


def test_every_kernel_is_emulated() -> None:
    assert {kernel for kernel, _ in launchers()} == {source.stem for source in CSRC.glob("*/*.cu")}
    assert {name for _, name in launchers()} == set(CALLS)


@pytest.mark.parametrize(("kernel", "function"), launchers())
def test_a_launch_that_fails_is_reported_and_ends_the_call(emulated_cuda: Callable[[str], Emulation], kernel: str, function: str) -> None:
    library, call = emulated_cuda(kernel), CALLS[function]
    library.emulation_fail_launch(0, 0)
    assert call(library) == 0
    count = library.emulation_launches()
    assert count > 0
    for which in range(1, count + 1):
        library.emulation_fail_launch(which, LAUNCH_FAILURE)
        assert call(library) == LAUNCH_FAILURE
        assert library.emulation_launches() == which
    library.emulation_fail_launch(0, 0)


@pytest.fixture(scope="module")
def wrong(tmp_path_factory: pytest.TempPathFactory) -> Emulation:
    return Emulation(compile_emulation(HERE / "wrong_kernels.cpp", tmp_path_factory.mktemp("wrong")))


@pytest.fixture(scope="module")
def racing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library for a process into which ThreadSanitizer's runtime is loaded first."""
    return compile_emulation(HERE / "wrong_kernels.cpp", tmp_path_factory.mktemp("racing"), "-g1", "-fsanitize=thread")


def test_shared_memory_holds_nothing_of_the_block_before(wrong: Emulation) -> None:
    of_template, of_kernel = np.zeros((2, 64), np.float32), np.zeros(2, np.int32)
    assert wrong.stale(of_template, of_kernel) == 0
    assert np.isnan(of_template).all()
    assert (of_kernel == -1).all()


@pytest.mark.parametrize("offset", [0, 1, 2, 3, 4])
def test_a_misaligned_vector_is_an_error(wrong: Emulation, offset: int) -> None:
    memory = np.zeros(16, np.float32)
    memory = memory[-memory.ctypes.data // 4 % 4 :]
    assert memory.ctypes.data % 16 == 0
    want = MISALIGNED_ADDRESS if offset % 4 else 0
    assert wrong.load(memory[offset:], np.zeros(1, np.float32)) == want
    assert wrong.store(memory[offset:]) == want


@pytest.mark.parametrize(
    ("grid", "block", "shared_bytes", "error"),
    [
        ((3, 2, 2), (8, 4, 2), 1000, 0),
        ((1, 65_535, 1), (1, 1, 1), 0, 0),
        ((1, 1, 1), (1024, 1, 1), 47_000, 0),
        ((0, 1, 1), (1, 1, 1), 0, INVALID_CONFIGURATION),
        ((2**31, 1, 1), (1, 1, 1), 0, INVALID_CONFIGURATION),
        ((1, 65_536, 1), (1, 1, 1), 0, INVALID_CONFIGURATION),
        ((1, 1, 65_536), (1, 1, 1), 0, INVALID_CONFIGURATION),
        ((1, 1, 1), (1025, 1, 1), 0, INVALID_CONFIGURATION),
        ((1, 1, 1), (32, 32, 2), 0, INVALID_CONFIGURATION),
        ((1, 1, 1), (1, 1, 65), 0, INVALID_CONFIGURATION),
        ((1, 1, 1), (0, 1, 1), 0, INVALID_CONFIGURATION),
        ((1, 1, 1), (1, 1, 1), 48 * 1024, INVALID_VALUE),  # beside the static variables of the source
    ],
)
def test_a_launch_beyond_the_limits_is_an_error(
    wrong: Emulation, grid: tuple[int, ...], block: tuple[int, ...], shared_bytes: int, error: int
) -> None:
    assert wrong.of_size(*grid, *block, shared_bytes) == error


@pytest.mark.parametrize("count", [2**31, 2**32 + 1])
def test_a_count_of_blocks_that_no_grid_holds_is_an_error(wrong: Emulation, count: int) -> None:
    assert wrong.blocks(count) == INVALID_CONFIGURATION


def test_a_deadlock_of_threads_is_an_error_and_the_next_launch_runs(wrong: Emulation) -> None:
    assert wrong.parted() == LAUNCH_TIMEOUT
    out = np.zeros(64, np.int32)
    assert wrong.reversed(out, 1) == 0
    np.testing.assert_array_equal(out, np.arange(64)[::-1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("call", "races"), [("reversed(out, 1)", False), ("reversed(out, 0)", True), ("shuffled(out)", True), ("load(out, out)", False)]
)
def test_the_race_check_sees_a_barrier_that_is_missing(racing: Path, call: str, races: bool) -> None:
    program = f"import ctypes; out = (ctypes.c_int * 64)(); assert ctypes.CDLL({str(racing)!r}).{call} == 0"
    runtime = subprocess.run(["gcc", "-print-file-name=libtsan.so"], check=True, capture_output=True, text=True).stdout.strip()
    environment = {"LD_PRELOAD": runtime, "TSAN_OPTIONS": "halt_on_error=1"}
    done = subprocess.run([sys.executable, "-S", "-c", program], capture_output=True, text=True, env=environment)
    assert ("data race" in done.stderr) == races, done.stderr
    assert (done.returncode != 0) == races, done.stderr
