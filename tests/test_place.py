"""Arrays that stay where an engine computes: the same pictures to the bit, and nothing copied to the host but them.

Without a GPU tensors on the CPU and the kernels of the CPU stand in for a device's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
_native = pytest.importorskip("resynth_fast._native")

from resynth_fast import backends, zoo  # noqa: E402
from resynth_fast.backends.torch import CudaGraphs, Torch  # noqa: E402
from resynth_fast.backends.torch.place import TorchPlace  # noqa: E402
from resynth_fast.bundle import Guidance  # noqa: E402
from resynth_fast.candidates.engine import EngineCandidate  # noqa: E402
from resynth_fast.engines import EnginePool  # noqa: E402
from resynth_fast.place import HOST  # noqa: E402
from resynth_fast.sampling import rescaled  # noqa: E402

AWAY = Torch("cpu", compiled=False, precision="f32", kernels=_native)
PLACE = TorchPlace(torch.device("cpu"), _native)
PROMPTS, SEEDS = zoo.prompts()[:2], [7, 1 << 40]


def floats(*shape: int) -> Any:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(
    "work",
    [
        lambda place, x: place.normal_rows([3, 1 << 63], [0, 9], (4, 2, 3)),
        lambda place, x: place.joined([x, x]),
        lambda place, x: place.full(3, 981.25),
        lambda place, x: place.floats(place.deviation(x) * 1e-3),
        lambda place, x: rescaled(x, Guidance("rescaled", 7.5, 0.7), place),
    ],
    ids=["noise", "joined", "full", "deviation", "rescaled"],
)
def test_operations_give_what_the_host_gives(work: Callable[..., Any]) -> None:
    x = np.abs(floats(4, 3, 8, 8)) + 1
    found, expected = work(PLACE, PLACE.here(x)), work(HOST, x)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)


def test_what_is_not_finite_is_seen_and_levels_are_rounded_alike() -> None:
    x = floats(2, 3, 4, 4)
    np.testing.assert_array_equal(PLACE.pixels(PLACE.here(x)), HOST.pixels(x))
    for harm in (np.nan, np.inf):
        x[1, 2, 3, 3] = harm
        assert not PLACE.finite(PLACE.here(x))
        assert not HOST.finite(x)
    assert PLACE.finite(PLACE.here(x[:1]))


@pytest.mark.parametrize("name", ["zoo-sd", "zoo-flux"])
def test_pictures_are_the_same_wherever_their_arrays_are(name: str) -> None:
    away, here = (
        EngineCandidate(zoo.bundle(name), EnginePool(backend)).make(PROMPTS, SEEDS, 4) for backend in (AWAY, backends.get("torch"))
    )
    np.testing.assert_array_equal(away, here)


def test_nothing_but_the_pictures_is_copied_to_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    candidate = EngineCandidate(zoo.bundle("zoo-sd"), EnginePool(AWAY))
    candidate.make(PROMPTS, SEEDS, 1)  # text states are kept on the host, once for all candidates
    copied: list[tuple[str, Any]] = []

    def watched(method: str) -> Callable[..., Any]:
        original = getattr(torch.Tensor, method)

        def call(self: Any, *arguments: Any, **settings: Any) -> Any:
            copied.append((method, self.dtype))
            return original(self, *arguments, **settings)

        return call

    for method in ("__array__", "cpu", "numpy", "tolist"):
        monkeypatch.setattr(torch.Tensor, method, watched(method))
    pictures = candidate.make(PROMPTS, SEEDS, 4)
    monkeypatch.undo()
    assert copied == [("cpu", torch.uint8), ("numpy", torch.uint8)]
    assert pictures[0].shape == (64, 64, 3)


def test_recorded_calls_are_one_for_each_shape_and_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is recorded reads and writes its own memory alone; here a function takes the part of a GPU's recording."""
    recorded: list[int] = []

    def capture(module: Any, inputs: Any) -> Any:
        recorded.append(len(inputs[0]))
        outputs = module(*inputs)

        def replay() -> None:
            for mine, new in zip(outputs, module(*inputs), strict=True):
                mine.copy_(new)

        return outputs, replay

    monkeypatch.setattr("resynth_fast.backends.torch.GRAPHS_KEPT", 2)
    graphs = CudaGraphs(lambda x: (x * 2,), capture)
    kept = []
    for rows in (1, 2, 1, 3, 1, 2):  # at 3, 2 is the longest unused
        x = torch.rand(rows, 3)
        kept.append((x.clone(), graphs(x)[0]))
        x.zero_()
    assert recorded == [1, 2, 3, 2]
    for x, found in kept:
        assert torch.equal(found, x * 2)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["zoo-sd", "zoo-flux"])
def test_pictures_of_a_gpu_are_those_of_the_cpu(name: str) -> None:
    gpu, cpu = (
        EngineCandidate(zoo.bundle(name), EnginePool(backend, strict=True)).make(PROMPTS, SEEDS, 4) for backend in ("torch:cuda", "torch")
    )
    assert np.abs(np.array(gpu, np.int16) - np.array(cpu)).max() <= 2
