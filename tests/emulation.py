"""CUDA sources without a GPU: compiled for the processor under the emulation header of tests/cuda_emulation."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

HERE = Path(__file__).parent / "cuda_emulation"
CSRC = Path(__file__).parents[1] / "csrc"
INCLUDES = [f"-I{path}" for path in (HERE, CSRC, CSRC / "include")]
# -ffp-contract=off: the same bits as the processor's kernels. The header turns a misaligned access into an error.
FLAGS = ["-std=c++20", "-O1", "-ffp-contract=off", "-fsanitize=alignment", "-shared", "-fPIC"]


class Emulation:
    """A library of emulated kernels. Its functions take arrays, None, integers and ctypes' own; 0 is success."""

    def __init__(self, path: Path) -> None:
        self._library = ctypes.CDLL(str(path))

    def __getattr__(self, name: str) -> Any:
        function = getattr(self._library, name)
        function.restype = ctypes.c_int64
        return lambda *arguments: function(*map(_as_c, arguments))


def compile_emulation(source: Path, folder: Path, *flags: str) -> Path:
    """Compile a .cpp that includes CUDA sources to a library. RESYNTH_EMULATION_FLAGS adds flags, as the race check of .ci/sanitize does.

    Skips the test where there is no g++.
    """
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++")
    library = folder / f"{source.stem}.so"
    unsanitized = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}  # the compiler itself
    wanted = [*FLAGS, *flags, *os.environ.get("RESYNTH_EMULATION_FLAGS", "").split()]
    subprocess.run([compiler, *wanted, *INCLUDES, source, "-o", library], check=True, env=unsanitized)
    return library


def _as_c(argument: Any) -> Any:
    if isinstance(argument, np.ndarray):
        return ctypes.c_void_p(argument.ctypes.data)
    return ctypes.c_int64(argument) if isinstance(argument, int) else argument
