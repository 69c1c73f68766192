"""A walk follows its step table on every device, as a plain float64 loop does."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from resynth_fast.bundle import StepRow, StepTable
from resynth_fast.errors import BundleError
from resynth_fast.sampling import walk
from resynth_fast.types import Floats

pytestmark = pytest.mark.usefixtures("every_isa")


def table(rows: list[tuple[tuple[float, ...], tuple[float, ...]]]) -> StepTable:
    return StepTable("Test", 2.0, tuple(StepRow(float(i), 0.5 + i, samples, outputs, 0.1 * i) for i, (samples, outputs) in enumerate(rows)))


LONG = table(
    [
        ((0.5,), (1.0,)),
        ((0.5, 0.1), (1.0, -0.5)),
        ((0.5, 0.1, 0.2), (1.0, -0.5, 0.3)),
        ((0.5, 0.1, 0.2, -0.4), (1.0, -0.5, 0.3, 0.7)),
        ((0.3, 0.0, 0.2), (0.0, -0.5)),
        ((0.5, 0.1, 0.2, -0.4), (1.0, -0.5, 0.3, 0.7)),
    ]
)


def plainly(table: StepTable, noise: Callable[[int], Floats], model: Callable[[Floats, float], Floats]) -> Floats:
    """The walk in float64 over lists that are never shortened."""
    xs, ms = [noise(0).astype(np.float64) * table.init_noise_sigma], []
    for call, row in enumerate(table.rows, start=1):
        ms.insert(0, model(xs[0] * row.input_scale, row.timestep))
        pairs = (*zip(row.samples, xs, strict=False), *zip(row.outputs, ms, strict=False), (row.noise, noise(call)))
        xs.insert(0, sum(weight * term for weight, term in pairs))
    return xs[0]


def model(x: Floats, timestep: float) -> Floats:
    return np.tanh(x + x.dtype.type(timestep))


def test_a_walk_keeps_as_much_history_as_its_table_needs() -> None:
    noises = np.random.default_rng(0).standard_normal((7, 3, 2, 5, 5), dtype=np.float32)
    kept = noises.copy()
    found = walk(LONG, lambda call: noises[call], model)
    np.testing.assert_allclose(found, plainly(LONG, lambda call: noises[call], model), rtol=0, atol=1e-5)
    assert (noises == kept).all()


def test_a_guided_walk_stores_the_guided_output() -> None:
    noises = np.random.default_rng(1).standard_normal((7, 3, 2, 5, 5), dtype=np.float32)

    def guided(x: Floats, timestep: float) -> Floats:
        return model(-x, timestep) + 1.5 * (model(x, timestep) - model(-x, timestep))

    def denoise(x: Floats, timestep: float) -> Floats:
        return np.concatenate([model(-x, timestep), model(x, timestep)])

    found = walk(LONG, lambda call: noises[call], denoise, 1.5)
    np.testing.assert_allclose(found, plainly(LONG, lambda call: noises[call], guided), rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([((1.0,), (1.0, 0.5))], "step table of Test: call 1 weights 2 outputs, there are 1 to 1; export the bundle again"),
        ([((1.0,), (1.0,))] * 5 + [((1.0,) * 5, (1.0,))], "step table of Test: call 6 weights 5 samples, there are 1 to 4; export"),
        ([((), (1.0,))], "step table of Test: call 1 weights 0 samples"),
        ([], "step table of Test has no rows; export the bundle again"),
    ],
)
def test_a_table_that_cannot_be_walked_is_refused(rows: list[tuple[tuple[float, ...], tuple[float, ...]]], message: str) -> None:
    with pytest.raises(BundleError, match=f"^{message}"):
        walk(table(rows), lambda call: np.ones((1, 1, 2, 2), np.float32), model)
