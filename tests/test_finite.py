"""A value that is not finite is found in any position, by the CPU's kernel and by CUDA's under the emulation header."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from emulation import Emulation

from resynth_fast.kernels import finite
from resynth_fast.kernels.twins import finite as twin

_native = pytest.importorskip("resynth_fast.kernels._native")

Faults = Callable[[Any, Any], None]


@pytest.fixture(params=["processor", "emulated CUDA"])
def faults(request: pytest.FixtureRequest, emulated_cuda: Callable[[str], Emulation]) -> Faults:
    if request.param == "processor":
        return _native.faults  # type: ignore[no-any-return]

    def run(values: Any, found: Any) -> None:
        assert emulated_cuda("finite").emulated_faults(values, values.size, found) == 0

    return run


@pytest.mark.parametrize("size", [1, 33, 255, 256, 2049])
def test_one_value_that_is_not_finite_is_found_anywhere(faults: Faults, size: int) -> None:
    largest = np.finfo(np.float32).max
    values = np.resize(np.array([0.0, -0.0, 1e-45, -largest, largest], np.float32), size)
    found = np.zeros(1, np.int32)
    faults(values, found)
    assert found == 0
    for at in {0, size // 2, size - 1}:
        for harm in (np.nan, np.inf, -np.inf):
            values[at], kept, before = harm, values[at], found.copy()
            faults(values, found)
            assert found > before
            values[at] = kept


def test_an_empty_array_is_finite(faults: Faults) -> None:
    found = np.full(1, 3, np.int32)
    faults(np.zeros((0, 4), np.float32), found)
    assert found == 3


@pytest.mark.parametrize("shape", [(0,), (1,), (3, 5, 7)])
def test_the_face_agrees_with_its_twin(shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).standard_normal(shape, np.float32)
    assert finite.all_finite(values) is twin.all_finite(values) is True
    for harm in (np.nan, np.inf, -np.inf):
        spoilt = values.copy()
        spoilt[-1:] = harm
        assert finite.all_finite(spoilt) is twin.all_finite(spoilt) is (values.size == 0)
        if values.ndim > 1:
            assert not finite.all_finite(spoilt.T), "a view in another order"


def test_another_dtype_is_refused() -> None:
    with pytest.raises(TypeError, match="values is a float64 array; it must be float32"):
        finite.all_finite(np.zeros(3))
