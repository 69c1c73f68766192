"""Compiled kernels: one module for each, its float64 twins, and the two extension modules, which are looked for here alone."""

from __future__ import annotations

import functools
import importlib
from typing import Any

# Only a missing extension falls back. One that exists but does not load raises its ImportError.
try:
    import resynth_fast.kernels._native as native
except ModuleNotFoundError:
    native = None  # type: ignore[assignment]

__all__ = ["compiled", "cuda", "isa", "native"]


def compiled() -> bool:
    """Whether `native`, the extension of CPU kernels, was built; else it is None and the twins compute."""
    return native is not None


def isa() -> str:
    """The instruction set that computes ("avx512", "avx2", "serial"), or "reference" where no extension was built.

    The environment variable RESYNTH_ISA forces an instruction set.
    """
    return native.isa() if compiled() else "reference"


@functools.cache
def cuda() -> Any:
    """The extension of CUDA kernels, or None where the package was built without it. Loading it needs no GPU."""
    try:
        return importlib.import_module("resynth_fast.kernels._cuda")
    except ModuleNotFoundError:
        return None
