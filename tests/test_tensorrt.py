"""TensorRT plans are used only if their key matches; an incomplete or foreign plan is built again."""

from __future__ import annotations

import json
import shutil
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

onnx = pytest.importorskip("onnx")

from resynth_fast import zoo  # noqa: E402
from resynth_fast.backends.onnx_model import OnnxModel  # noqa: E402
from resynth_fast.bundle import Component  # noqa: E402
from resynth_fast.errors import BundleError, ConfigError  # noqa: E402
from resynth_fast.export import tensorrt  # noqa: E402
from resynth_fast.export.tensorrt import Key  # noqa: E402


@pytest.fixture(scope="module")
def component() -> Component:
    return zoo.bundle(zoo.TAGGER).components["tagger"]


@pytest.fixture(scope="module")
def key(component: Component) -> Key:
    graph, weights = tensorrt._hashes(component.file.read())
    return Key(
        graph=graph,
        weights=weights,
        shapes=tensorrt.shapes(component),
        precision=component.precision,
        flavour="tensorrt-rtx",
        version="1.7.1.116",
        compute_capability="8.9",
    )


OTHER: dict[str, Any] = {
    "graph": "0" * 64,
    "weights": "0" * 64,
    "shapes": {"pixels": ((1, 3, 64, 64), (4, 3, 64, 64), (8, 3, 64, 64))},
    "precision": "float32",
    "flavour": "tensorrt",
    "version": "1.7.1.117",
    "compute_capability": "12.0",
    "flags": ("STRIP_PLAN",),
}


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[Key]:
    """Keys of the plans that were built, by a builder that takes no time."""
    made: list[Key] = []

    def build(graph: bytes, key: Key) -> bytes:
        made.append(key)
        return f"plan {key.digest()} {len(made)}".encode() * 100

    monkeypatch.setattr(tensorrt, "build", build)
    return made


def test_a_plan_of_equal_key_is_found_again(component: Component, key: Key, built: list[Key], tmp_path: Path) -> None:
    first = tensorrt.plan(tmp_path, component, key)
    assert tensorrt.plan(tmp_path, component, replace(key)) == first
    assert built == [key]
    side_car = json.loads(first.with_suffix(".json").read_text())
    assert side_car["key"]["compute_capability"] == "8.9"
    assert set(side_car["key"]) == {field.name for field in fields(Key)}


@pytest.mark.parametrize("field", [field.name for field in fields(Key)])
def test_another_value_of_any_field_is_another_plan(field: str, component: Component, key: Key, built: list[Key], tmp_path: Path) -> None:
    other = replace(key, **{field: OTHER[field]})
    paths = {tensorrt.plan(tmp_path, component, key), tensorrt.plan(tmp_path, component, other)}
    assert len(paths) == len(built) == 2
    assert not tensorrt.valid(tensorrt.plan(tmp_path, component, key), other)


@pytest.mark.parametrize("harm", ["truncated", "one bit", "foreign plan", "foreign with its side-car", "no side-car", "broken side-car"])
def test_a_plan_that_does_not_match_its_key_is_built_again(
    harm: str, component: Component, key: Key, built: list[Key], tmp_path: Path
) -> None:
    path, other = (tensorrt.plan(tmp_path, component, k) for k in (key, replace(key, compute_capability="12.0")))
    before = path.read_bytes()
    if harm == "truncated":
        path.write_bytes(before[:-1])
    elif harm == "one bit":
        path.write_bytes(bytes([before[0] ^ 1]) + before[1:])
    elif harm.startswith("foreign"):
        shutil.copy(other, path)
        if harm.endswith("side-car"):
            shutil.copy(other.with_suffix(".json"), path.with_suffix(".json"))
    elif harm == "no side-car":
        path.with_suffix(".json").unlink()
    else:
        path.with_suffix(".json").write_text("{")
    assert not tensorrt.valid(path, key)
    assert tensorrt.plan(tmp_path, component, key) == path
    assert len(built) == 3
    assert tensorrt.valid(path, key)


def test_weights_and_nodes_are_hashed_apart(component: Component) -> None:
    model = onnx.load_from_string(component.file.read())
    before = tensorrt._hashes(model.SerializeToString())
    weight = model.graph.initializer[0]
    weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) * 2, weight.name))
    graph, weights = tensorrt._hashes(model.SerializeToString())
    assert (graph == before[0], weights == before[1]) == (True, False)


def test_a_component_of_the_zoo_builds_for_two_kinds_of_gpu_without_one(component: Component, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    keys = [tensorrt.key_of(component, compute_capability=capability) for capability in ("8.9", "12.0")]
    paths = [tensorrt.plan(tmp_path, component, key) for key in keys]
    assert all(path.stat().st_size > 100_000 for path in paths)
    times = [path.stat().st_mtime_ns for path in paths]
    assert [tensorrt.plan(tmp_path, component, key).stat().st_mtime_ns for key in keys] == times
    with pytest.raises(ConfigError, match=r"compute capability is '1\.0'; this TensorRT-RTX builds for 7\.5"):
        tensorrt.plan(tmp_path, component, replace(keys[0], compute_capability="1.0"))
    with pytest.raises(BundleError, match="cannot read the graph"):
        tensorrt.build(OnnxModel(b"no graph"), keys[0])
