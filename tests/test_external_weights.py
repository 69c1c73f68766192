"""Weights too many for a graph: streamed to a file of their own, the same for the same weights, and part of every identity."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from safetensors.numpy import load_file  # noqa: E402

from resynth_fast import backends  # noqa: E402
from resynth_fast.bundle import OBJECTS, Bundle  # noqa: E402
from resynth_fast.engines.pool import EnginePool, engine_ref  # noqa: E402
from resynth_fast.errors import BundleError  # noqa: E402
from resynth_fast.export import bundles, graphs, tensorrt, weights  # noqa: E402
from resynth_fast.export.graphs import Network  # noqa: E402

FIELDS = {"kind": "captioner", "family": "none", "licence": "none"}


class Module(torch.nn.Module):
    """Weights of both precisions: float16 holds the layers, not the table."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = torch.nn.Linear(32, 33), torch.nn.Linear(33, 16)
        self.register_buffer("table", torch.arange(16 * 17).reshape(16, 17) / 7e5, persistent=False)
        weights.rest(self)
        self.table += 1e-7

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.second(torch.nn.functional.gelu(self.first(pixels))) @ self.table


def network(module: torch.nn.Module) -> Network:
    return Network(module, lambda b: {"pixels": torch.randn(b, 32, generator=torch.Generator().manual_seed(b))}, ("scores",))


@pytest.fixture(scope="module")
def module() -> Module:
    return Module()


@pytest.fixture(scope="module")
def inside(module: Module, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return bundles.write(tmp_path_factory.mktemp("inside"), FIELDS | {"name": "one"}, {"part": network(module)})


@pytest.fixture(scope="module")
def outside(module: Module, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The same, as a network of gigabytes is written."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "EXTERNAL_FROM", 1)
        return bundles.write(tmp_path_factory.mktemp("outside"), FIELDS | {"name": "one"}, {"part": network(module)})


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_both_forms_compute_the_same(name: str, inside: Bundle, outside: Bundle) -> None:
    if name == "openvino":
        pytest.importorskip("openvino")
    assert not inside.components["part"].data
    given = {"pixels": np.random.default_rng(0).standard_normal((5, 32)).astype(np.float32)}
    expected, found = (
        backends.get(name).load(b.components["part"].onnx_model(), threads=1).run(given)["scores"] for b in (inside, outside)
    )
    np.testing.assert_array_equal(found, expected)


def test_the_file_is_safetensors_beside_a_graph_that_any_library_reads(module: Module, outside: Bundle) -> None:
    component = outside.components["part"]
    [data] = component.data
    assert data.path.parent == component.file.path.parent == outside.folder.parent / OBJECTS
    assert sorted(path.name for path in outside.folder.iterdir()) == ["bundle.json"]
    tensors = load_file(data.path)
    assert sorted(str(array.dtype) for array in tensors.values()) == ["float16", "float16", "float32"]
    kept = {tuple(array.shape): array for array in tensors.values()}
    np.testing.assert_array_equal(kept[16, 17], module.table.numpy())
    by_onnx = {w.name: onnx.numpy_helper.to_array(w) for w in onnx.load(component.file.path).graph.initializer}
    assert set(tensors) <= set(by_onnx)
    for name, array in tensors.items():
        np.testing.assert_array_equal(by_onnx[name], array)


def test_the_same_weights_give_the_same_files_and_others_another_identity(
    module: Module, outside: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "EXTERNAL_FROM", 1)
    assert bundles.write(tmp_path, FIELDS | {"name": "one"}, {"part": network(module)}).sha256 == outside.sha256
    changed = copy.deepcopy(module)
    changed.first.weight.data[3, 4] *= 1.5
    other = bundles.write(tmp_path, FIELDS | {"name": "other"}, {"part": network(changed)})
    mine, theirs = outside.components["part"], other.components["part"]
    assert mine.file.sha256 != theirs.file.sha256  # by which engines, text states and plans are found
    assert tensorrt._hashes(mine.file.read())[1] != tensorrt._hashes(theirs.file.read())[1]
    assert tensorrt._hashes(mine.file.read())[0] == tensorrt._hashes(theirs.file.read())[0]
    bundles.prune(tmp_path)
    other.verify()


def test_weights_are_stored_in_16_bits_and_widened_only_in_use(module: Module) -> None:
    def kinds() -> list[Any]:
        return [parameter.dtype for parameter in module.parameters()]

    assert set(kinds()) == {torch.float16}
    before = [parameter.clone() for parameter in module.parameters()]
    with weights.widened(module):
        assert set(kinds()) == {torch.float32}
        with weights.widened(module):  # as of a part that two networks share
            pass
        assert set(kinds()) == {torch.float32}
    assert set(kinds()) == {torch.float16}
    assert all(map(torch.equal, before, module.parameters()))
    assert weights.weights_sha256(module) == weights.weights_sha256(copy.deepcopy(module).float())


def test_a_traced_network_still_has_the_modules_own_weights(module: Module) -> None:
    """Nothing of gigabytes is copied: what the exporter holds is where torch has it, but for what it has turned."""
    with weights.widened(module):
        initializers = graphs._trace(network(module)).model.graph.initializers.values()
        own = {tensor.untyped_storage().data_ptr() for tensor in (*module.parameters(), *module.buffers())}
        large = [v.const_value.numpy() for v in initializers if v.const_value.size >= weights.HALVED_FROM]
        assert len(large) == 3
        assert {array.__array_interface__["data"][0] for array in large} <= own


def test_memory_is_planned_for_the_weights_too(outside: Bundle) -> None:
    component = outside.components["part"]
    [data] = component.data
    assert component.size_bytes == component.file.path.stat().st_size + data.path.stat().st_size
    assert engine_ref(component).size_bytes % component.size_bytes == 0


def test_an_engine_of_changed_weights_is_refused(module: Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "EXTERNAL_FROM", 1)
    component = bundles.write(tmp_path, FIELDS | {"name": "one"}, {"part": network(module)}).components["part"]
    EnginePool(threads=1).get(component)
    [data] = component.data
    content = bytearray(data.path.read_bytes())
    content[-1] ^= 1
    data.path.write_bytes(content)
    with pytest.raises(BundleError, match="was changed or truncated"):
        EnginePool(threads=1).get(component)


def test_a_plan_is_built_with_the_weights_beside_the_graph(outside: Bundle, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    component = outside.components["part"]
    key = tensorrt.key_of(component, compute_capability="8.9")
    assert tensorrt.valid(tensorrt.plan(tmp_path, component, key), key)
