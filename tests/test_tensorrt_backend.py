"""The TensorRT backend without a GPU: the choice of a plan, and the use of a device that is made of host memory."""

from __future__ import annotations

import ctypes
import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tensorrt_rtx")

from resynth_fast import backends
from resynth_fast.backends.onnx_model import OnnxModel
from resynth_fast.backends.tensorrt import TensorRt, TensorRtEngine
from resynth_fast.devices import cuda_driver
from resynth_fast.devices.cuda_array import CudaArray
from resynth_fast.errors import BundleError, DeviceError

GRAPH = b"some graph"
MOST, STREAM = 4, 7


class Plan:
    """Engine and context of a plan that computes x + i on the addresses and shapes it was bound to, as the library does."""

    num_io_tensors = 3

    def __init__(self) -> None:
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.calls = 0

    def create_execution_context(self) -> Plan:
        return self

    def get_tensor_name(self, i: int) -> str:
        return ("x", "i", "sum")[i]

    def get_tensor_mode(self, name: str) -> str:
        return "out" if name == "sum" else "in"

    def get_tensor_dtype(self, name: str) -> str:
        return "int64" if name == "i" else "float32"

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        return [(1, 3), (2, 3), (MOST, 3)]

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shapes[name] = shape
        return shape[0] <= MOST and shape[1:] == ((3,) if name == "x" else ())

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self.shapes["x"]

    def set_tensor_address(self, name: str, address: int) -> None:
        self.addresses[name] = address

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == STREAM
        assert all(address % 256 == 0 for address in self.addresses.values())
        self.calls += 1
        x, i, out = (self.at(name) for name in ("x", "i", "sum"))
        out[:] = x + i[:, None]
        return True

    def at(self, name: str) -> Any:
        kind = ctypes.c_int64 if name == "i" else ctypes.c_float
        shape = self.shapes["i" if name == "i" else "x"]
        return np.ctypeslib.as_array(ctypes.cast(self.addresses[name], ctypes.POINTER(kind)), shape)


LIBRARY = SimpleNamespace(
    __version__="1.7", nptype=np.dtype, TensorIOMode=SimpleNamespace(INPUT="in"), Logger=SimpleNamespace(ERROR=0), Runtime=None
)


def inputs(rows: int) -> dict[str, Any]:
    return {"x": np.random.default_rng(rows).standard_normal((rows, 3)).astype(np.float32), "i": np.arange(rows)}


def test_any_number_of_rows_is_run_and_memory_never_leaks(host_device: Any) -> None:
    plan = Plan()
    engine = TensorRtEngine(plan, LIBRARY, host_device)
    for rows in (1, 2, 4, 3, 11, 1):
        given = inputs(rows)
        found = engine.run(given)
        assert set(found) == {"sum"}
        np.testing.assert_array_equal(found["sum"], given["x"] + given["i"][:, None].astype(np.float32))
        assert not host_device.memory
    assert plan.calls == 1 + 1 + 1 + 1 + 3 + 1


@pytest.mark.parametrize("rows", [1, 4, 11])
def test_arrays_of_the_device_stay_there(host_device: Any, rows: int) -> None:
    """However many calls their rows take."""
    given = inputs(rows)
    engine = TensorRtEngine(Plan(), LIBRARY, host_device)
    here = {name: CudaArray.of(host_device, values) for name, values in given.items()}
    host_device.copied.clear()
    found = engine.run(here)["sum"]
    mixed = engine.run({"x": here["x"], "i": given["i"]})["sum"]
    assert host_device.copied == [("up", np.int64)]
    for each in (found, mixed):
        np.testing.assert_array_equal(each.to_host(), given["x"] + given["i"][:, None].astype(np.float32))
    del here, found, mixed, each
    assert not host_device.memory


def test_arrays_of_another_type_than_the_plan_takes_are_refused(host_device: Any) -> None:
    engine = TensorRtEngine(Plan(), LIBRARY, host_device)
    x, i = inputs(2).values()
    with pytest.raises(BundleError, match="takes i as int64, the input is int32"):
        engine.run({"x": x, "i": CudaArray.of(host_device, i.astype(np.int32))})


def test_inputs_are_converted_to_the_types_of_the_plan(host_device: Any) -> None:
    engine = TensorRtEngine(Plan(), LIBRARY, host_device)
    given = inputs(3)
    expected = given["x"] + given["i"][:, None].astype(np.float32)
    turned = {"x": np.asfortranarray(given["x"]), "i": given["i"].astype(np.int32)}
    np.testing.assert_array_equal(engine.run(turned)["sum"], expected)


@pytest.mark.parametrize(
    "spoil",
    [lambda g: {"x": g["x"]}, lambda g: {**g, "more": g["x"]}, lambda g: {**g, "x": g["x"][:, :2]}, lambda g: {**g, "i": g["i"][:1]}],
    ids=["missing", "unknown", "shape", "rows"],
)
def test_inputs_that_the_plan_does_not_take_are_refused(host_device: Any, spoil: Any) -> None:
    engine = TensorRtEngine(Plan(), LIBRARY, host_device)
    with pytest.raises(BundleError):
        engine.run(spoil(inputs(2)))
    assert engine.run(inputs(2))["sum"].shape == (2, 3)


def written(folder: Path, content: bytes = b"a plan", name: str = "a", **changes: Any) -> Path:
    """A plan and its side-car, as the exporter writes them."""
    fields = {"flavour": "tensorrt-rtx", "version": "1.7", "compute_capability": "8.9"} | changes
    side_car = {"key": fields, "component_sha256": hashlib.sha256(GRAPH).hexdigest(), "plan_sha256": hashlib.sha256(content).hexdigest()}
    (folder / f"{name}.plan").write_bytes(content)
    (folder / f"{name}.json").write_text(json.dumps(side_car))
    return folder / f"{name}.plan"


def found(folder: Path, graph: bytes = GRAPH) -> tuple[str, bytes]:
    return TensorRt(folder, SimpleNamespace(compute_capability="8.9"), {"tensorrt-rtx": LIBRARY}).find(hashlib.sha256(graph).hexdigest())


def test_the_plan_of_this_graph_device_and_version_is_loaded(tmp_path: Path) -> None:
    written(tmp_path, b"older", "a", version="1.6")
    written(tmp_path, b"other device", "b", compute_capability="12.0")
    written(tmp_path, b"other library", "c", flavour="tensorrt")
    (tmp_path / "d.json").write_text("[]")
    written(tmp_path, b"this one", "e")
    assert found(tmp_path) == ("tensorrt-rtx", b"this one")


@pytest.mark.parametrize(
    "harm", ["other graph", "older", "other device", "cut short", "no plan", "no side-car", "broken side-car", "no folder"]
)
def test_a_plan_of_another_graph_device_or_version_is_never_loaded(tmp_path: Path, harm: str) -> None:
    changes = {"older": {"version": "1.6"}, "other device": {"compute_capability": "9.0"}}.get(harm, {})
    plan = written(tmp_path, **changes)
    if harm == "cut short":
        plan.write_bytes(plan.read_bytes()[:-1])
    elif harm == "no plan":
        plan.unlink()
    elif harm == "no side-car":
        plan.with_suffix(".json").unlink()
    elif harm == "broken side-car":
        plan.with_suffix(".json").write_text("{")
    with pytest.raises(DeviceError, match=r"has no whole plan of component .* build it with `resynth export plans BUNDLE"):
        found(tmp_path / "nowhere" if harm == "no folder" else tmp_path, b"another" if harm == "other graph" else GRAPH)


def test_a_plan_that_the_library_refuses_is_an_error(host_device: Any, tmp_path: Path) -> None:
    written(tmp_path)
    refusing = SimpleNamespace(
        **{
            **vars(LIBRARY),
            "Logger": type("Logger", (), {"ERROR": 0, "__init__": lambda self, level: None}),
            "Runtime": lambda logger: SimpleNamespace(deserialize_cuda_engine=lambda plan: None),
        }
    )
    with pytest.raises(BundleError, match="does not take the plan"):
        TensorRt(tmp_path, host_device, {"tensorrt-rtx": refusing}).load(OnnxModel(GRAPH), threads=1)


def test_without_a_driver_the_backend_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_driver, "LIBRARY", "libcuda-that-is-not-there.so.1")
    cuda_driver.context.cache_clear()
    with pytest.raises(DeviceError, match=r"no NVIDIA driver .* choose another backend"):
        backends.get("tensorrt")


@pytest.mark.gpu
def test_a_plan_of_the_zoo_agrees_with_onnx_runtime(tmp_path: Path) -> None:
    from resynth_fast import zoo
    from resynth_fast.export import tensorrt

    component = zoo.bundle(zoo.TAGGER).components["tagger"]
    capability = cuda_driver.CudaContext().compute_capability
    tensorrt.plan(tmp_path, component, tensorrt.key_of(component, compute_capability=capability))
    pixels = np.random.default_rng(0).random((40, *component.inputs["pixels"].shape[1:])).astype(np.float32)  # type: ignore[arg-type]
    given, expected = (
        backends.get(name).load(component.onnx_model(), threads=1).run({"pixels": pixels})
        for name in (f"tensorrt:{tmp_path}", "onnxruntime")
    )
    for name, values in expected.items():
        assert np.abs(given[name] - values).max() <= 1e-2 * np.abs(values).max()
