"""Arrays that stay where an engine computes: the same pictures to the bit, and nothing copied to the host but them.

Without a GPU tensors on the CPU and the kernels of the CPU stand in for a device's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
_native = pytest.importorskip("resynth_fast.kernels._native")

from stand_in import StandIn  # noqa: E402

from resynth_fast import backends, zoo  # noqa: E402
from resynth_fast.backends.torch import CudaGraphs, Torch  # noqa: E402
from resynth_fast.backends.torch.device import TorchDevice  # noqa: E402
from resynth_fast.bundle import Component, File, Guidance, Tensor  # noqa: E402
from resynth_fast.candidates.engine import EngineCandidate  # noqa: E402
from resynth_fast.devices.base import CPU  # noqa: E402
from resynth_fast.engines.pool import EnginePool  # noqa: E402
from resynth_fast.extractors.network import NetworkExtractor  # noqa: E402
from resynth_fast.extractors.pixels import PixelRecipe  # noqa: E402
from resynth_fast.extractors.space import FeatureSpace, open_space  # noqa: E402
from resynth_fast.gallery import Entry, Gallery, Layout  # noqa: E402
from resynth_fast.sampling import rescaled  # noqa: E402

KERNELS = StandIn()
AWAY = Torch("cpu", compiled=False, precision="f32", kernels=KERNELS)
DEVICE = TorchDevice(torch.device("cpu"), KERNELS)
PROMPTS, SEEDS = zoo.prompts()[:2], [7, 1 << 40]


def floats(*shape: int) -> Any:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize(
    "work",
    [
        lambda device, x: device.normal_rows([3, 1 << 63], [0, 9], (4, 2, 3)),
        lambda device, x: device.concatenate([x, x]),
        lambda device, x: device.full(3, 981.25),
        lambda device, x: device.deviation(x),
        lambda device, x: rescaled(x, Guidance("rescaled", 7.5, 0.7), device),
    ],
    ids=["noise", "joined", "full", "deviation", "rescaled"],
)
def test_operations_on_a_device_agree_with_the_host(work: Callable[..., Any]) -> None:
    x = np.abs(floats(4, 3, 8, 8)) + 1
    found, expected = work(DEVICE, DEVICE.to_device(x)), work(CPU, x)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_values_that_are_not_finite_are_detected_and_levels_are_rounded_alike() -> None:
    x = floats(2, 3, 4, 4)
    np.testing.assert_array_equal(DEVICE.to_host(DEVICE.to_uint8(DEVICE.to_device(x))), CPU.to_uint8(x))
    for harm in (np.nan, np.inf):
        x[1, 2, 3, 3] = harm
        assert not DEVICE.all_finite(DEVICE.to_device(x))
        assert not CPU.all_finite(x)
    assert DEVICE.all_finite(DEVICE.to_device(x[:1]))


@pytest.mark.parametrize("name", ["zoo-sd", "zoo-flux"])
def test_pictures_are_the_same_on_every_device(name: str) -> None:
    away, here = (
        EngineCandidate(zoo.bundle(name), EnginePool(backend)).make(PROMPTS, SEEDS, 4) for backend in (AWAY, backends.get("torch"))
    )
    np.testing.assert_array_equal(away, here)


TEXTURE = open_space(zoo.bundle(zoo.TEXTURE))


def encoder(folder: Path, pool: EnginePool) -> FeatureSpace:
    """A feature space whose network sums over its input pixels, at 24 px, three pictures a call."""
    inputs, outputs = {"pixels": ("b", 3, 24, 24)}, {"nc": ("b", 3), "nw": ("b", 24)}
    nodes = [onnx.helper.make_node("Einsum", ["pixels"], [tap], equation=f"nchw->{tap}") for tap in outputs]
    ends = ([onnx.helper.make_tensor_value_info(name, 1, shape) for name, shape in each.items()] for each in (inputs, outputs))
    imports = [onnx.helper.make_opsetid("", 18)]
    graph = onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", *ends), opset_imports=imports, ir_version=8)
    (path := folder / "network.onnx").write_bytes(graph.SerializeToString())
    given, found = ({name: Tensor("float32", shape) for name, shape in each.items()} for each in (inputs, outputs))
    component = Component(File(path, hashlib.sha256(path.read_bytes()).hexdigest()), "float32", given, found)
    facts = {"taps": list(outputs), "max_batch": 3}
    bundle: Any = SimpleNamespace(folder=folder, components={"network": component}, manifest=facts, get=lambda name, kind: facts[name])
    return replace(TEXTURE, pixels=PixelRecipe(working_size=40), extractor=NetworkExtractor(bundle, pool, 40))


@pytest.mark.parametrize("jpeg_quality", [90, None])
def test_descriptors_computed_on_a_device_are_those_of_the_host(jpeg_quality: int | None) -> None:
    here = replace(TEXTURE, pixels=replace(TEXTURE.pixels, jpeg_quality=jpeg_quality))
    pictures = np.random.default_rng(0).integers(0, 256, (3, 97, 80, 3), np.uint8)
    expected = here.features(list(pictures))
    np.testing.assert_array_equal(here.features(DEVICE.to_device(pictures), DEVICE), expected)
    of_many_sizes = [pictures[0], pictures[1, 3:40, 5:], pictures[2, ::-1]]  # of the host, not all of whole rows
    np.testing.assert_array_equal(here.features(of_many_sizes, DEVICE), here.features(of_many_sizes))


@pytest.mark.parametrize("storage", ["float32", "float16"])
def test_a_gallery_is_searched_on_a_device_as_on_the_cpu(tmp_path: Path, storage: Any) -> None:
    with Gallery.create(tmp_path / "gallery", Layout.of(TEXTURE, storage)) as gallery:
        x = floats(40, TEXTURE.extractor.dimension)
        gallery.add([Entry(generator=f"g{i % 2}", picture_sha256=f"{i:064x}") for i in range(40)], x)
        blocks = list(gallery.layout.blocks)
        assert gallery.nearest(x[:5], blocks, device=DEVICE) == gallery.nearest(x[:5], blocks)


def test_squares_are_resized_alike() -> None:
    squares = np.random.default_rng(2).integers(0, 2, (2, 30, 30, 3), np.uint8) * 255  # black beside white: bicubic goes beyond both
    expected = CPU.resize_to_unit(squares, 41)
    np.testing.assert_array_equal(DEVICE.to_host(DEVICE.resize_to_unit(DEVICE.to_device(squares), 41)), expected)
    assert (expected.min(), expected.max()) == (0, 1)


@pytest.mark.parametrize("backend", [AWAY, backends.get("torch")], ids=["away", "here"])
@pytest.mark.parametrize("device", [DEVICE, CPU], ids=["away", "here"])
def test_an_encoder_gets_its_pixels_on_its_device(backend: Torch, device: Any, tmp_path: Path) -> None:
    pictures = np.random.default_rng(1).integers(0, 256, (4, 50, 60, 3), np.uint8)
    expected = encoder(tmp_path, EnginePool(backends.get("onnxruntime"))).features(list(pictures))
    found = encoder(tmp_path, EnginePool(backend)).features(device.to_device(pictures), device)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert np.ptp(expected, 0).min() > 0


def test_nothing_but_features_and_pictures_is_copied_to_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = EnginePool(AWAY)
    candidate, spaces = EngineCandidate(zoo.bundle("zoo-sd"), pool), (TEXTURE, encoder(tmp_path, pool))
    candidate.make(PROMPTS, SEEDS, 1)  # fills the text cache on the host, which all candidates share
    copied: list[tuple[Any, ...]] = []

    def watched(method: str) -> Callable[..., Any]:
        original = getattr(torch.Tensor, method)

        def call(self: Any, *arguments: Any, **settings: Any) -> Any:
            copied.append((method, self.dtype, *self.shape))
            return original(self, *arguments, **settings)

        return call

    for method in ("__array__", "cpu", "item", "numpy", "tolist"):
        monkeypatch.setattr(torch.Tensor, method, watched(method))
    device, pictures = candidate.draw(PROMPTS, SEEDS, 4)
    drawn = copied.copy()
    for each in spaces:
        each.features(pictures, device)
    found = device.to_host(pictures)
    monkeypatch.undo()
    assert drawn == []
    expected = [
        (torch.float32, 2, TEXTURE.extractor.dimension),
        (torch.float32, 2, 3),
        (torch.float32, 2, 24),
        (torch.uint8, 2, 64, 64, 3),
    ]
    assert copied == [(method, *each) for each in expected for method in ("cpu", "numpy")]
    np.testing.assert_array_equal(found, candidate.make(PROMPTS, SEEDS, 4))


def test_one_graph_is_captured_for_each_shape_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
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
    results: list[Any] = []
    for rows in (1, 2, 1, 3, 1, 2):  # at 3, the graph for 2 is the least recently used
        x = torch.full((rows, 3), 1.0 + len(results))
        results.append((x.clone(), graphs(x)[0]))
        x.zero_()
    assert recorded == [1, 2, 3, 2]
    for x, found in results:
        assert torch.equal(found, x * 2)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["zoo-sd", "zoo-flux"])
def test_pictures_of_a_gpu_are_those_of_the_cpu(name: str) -> None:
    gpu, cpu = (
        EngineCandidate(zoo.bundle(name), EnginePool(backend, strict=True)).make(PROMPTS, SEEDS, 4) for backend in ("torch:cuda", "torch")
    )
    assert np.abs(np.array(gpu, np.int16) - np.array(cpu)).max() <= 2


@pytest.mark.gpu
def test_features_on_a_gpu_are_those_of_the_host() -> None:
    from resynth_fast.kernels import _cuda

    gpu, image = TorchDevice(torch.device("cuda"), _cuda), floats(2, 3, 80, 80)
    pictures = CPU.to_uint8(image)
    there = gpu.to_device(pictures)
    np.testing.assert_array_equal(gpu.to_host(gpu.to_uint8(gpu.to_device(image))), pictures)
    np.testing.assert_array_equal(gpu.to_host(gpu.jpeg_round_trip(there, 90)), CPU.jpeg_round_trip(pictures, 90))
    # a weight that a fused multiply-add rounds the other way may move a value by one level
    moved = gpu.to_host(gpu.resize([there[0], there[1, 7:60, 9:62]], 64)).astype(int) - CPU.resize(
        [pictures[0], pictures[1, 7:60, 9:62]], 64
    )
    assert np.abs(moved).max() <= 1
    np.testing.assert_allclose(gpu.to_host(gpu.resize_to_unit(there, 96)), CPU.resize_to_unit(pictures, 96), rtol=0, atol=1e-6)
    features = TEXTURE.features(pictures), TEXTURE.features(there, gpu)
    assert 1 - np.sum(np.prod([rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in features], 0), 1).min() < 1e-4
