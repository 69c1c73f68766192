"""One suite for every backend that is installed: known answers, the zoo's graphs, batches, threads, faults, fallbacks."""

from __future__ import annotations

import hashlib
import pkgutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from safetensors.numpy import save  # noqa: E402

from resynth_fast import Attributor, backends, zoo  # noqa: E402
from resynth_fast.backends.onnx_model import OnnxModel  # noqa: E402
from resynth_fast.bundle import Component  # noqa: E402
from resynth_fast.engines.pool import EnginePool  # noqa: E402
from resynth_fast.errors import BundleError, ConfigError, DeviceError  # noqa: E402

TOLERANCE = {"onnxruntime": 1e-5, "openvino": 1e-4, "openvino:bf16": 6e-2, "torch": 1e-5, "torch:bf16": 6e-2}
"""Largest error of the largest output."""
MEASURE = "onnxruntime"
LOCATED = b"\n\x08location\x12\x01w"
WEIGHTS = np.random.default_rng(0).standard_normal((5, 7)).astype(np.float32)


def test_every_backend_of_this_package_is_tested() -> None:
    """TensorRT runs on a GPU alone and has a file of tests of its own."""
    own = {module.name for module in pkgutil.iter_modules(backends.__path__)} - backends.HELPERS - {"tensorrt"}
    assert own == {name.partition(":")[0] for name in TOLERANCE}


def installed(name: str) -> backends.Backend:
    try:
        return backends.get(name)
    except DeviceError as error:
        pytest.skip(str(error))


@pytest.fixture(params=sorted(TOLERANCE))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def engine(name: str) -> backends.Engine:
    return installed(name).load(OnnxModel(graph()), threads=1)


def graph() -> bytes:
    """`scaled` = tanh(x · W) and `looked_up` = W[:, i]: two outputs, floats and whole numbers in."""
    value = helper.make_tensor_value_info
    made = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["product"]),
            helper.make_node("Tanh", ["product"], ["scaled"]),
            helper.make_node("Gather", ["w", "i"], ["rows"], axis=1),
            helper.make_node("Transpose", ["rows"], ["looked_up"], perm=[1, 0]),
        ],
        "network",
        [value("x", TensorProto.FLOAT, ["batch", 5]), value("i", TensorProto.INT64, ["batch"])],
        [value("scaled", TensorProto.FLOAT, ["batch", 7]), value("looked_up", TensorProto.FLOAT, ["batch", 5])],
        [numpy_helper.from_array(WEIGHTS, "w")],
    )
    return bytes(helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10).SerializeToString())


def inputs(batch: int) -> dict[str, Any]:
    rng = np.random.default_rng(batch)
    return {"x": rng.standard_normal((batch, 5)).astype(np.float32), "i": rng.integers(0, 7, batch)}


def apart(folder: Path, offset_by: int = 0) -> OnnxModel:
    """The same network, its weights in a file of their own beside it; `offset_by` makes the graph read them elsewhere."""
    content = save({"w": WEIGHTS})
    location = hashlib.sha256(content).hexdigest() + ".safetensors"
    (folder / location).write_bytes(content)
    made = onnx.load_from_string(graph())
    weight = made.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    start = len(content) - WEIGHTS.nbytes + offset_by
    for key, value in {"location": location, "offset": str(start), "length": str(WEIGHTS.nbytes)}.items():
        weight.external_data.add(key=key, value=value)
    path = folder / "graph.onnx"
    path.write_bytes(made.SerializeToString())
    return OnnxModel(path.read_bytes(), {location: folder / location}, path)


def near(name: str, found: Any, expected: Any) -> None:
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() <= TOLERANCE[name] * np.abs(expected).max()


def test_known_answers_at_any_batch_size(name: str, engine: backends.Engine) -> None:
    for batch in (1, 3, 8, 1):
        given = inputs(batch)
        found = engine.run(given)
        assert set(found) == {"scaled", "looked_up"}
        near(name, found["scaled"], np.tanh(given["x"] @ WEIGHTS))
        near(name, found["looked_up"], WEIGHTS[:, given["i"]].T)
    assert engine.fallback == "" or name == "openvino:bf16"


def test_weights_outside_the_graph_are_those_inside_it(name: str, engine: backends.Engine, tmp_path: Path) -> None:
    other = installed(name).load(apart(tmp_path), threads=1)
    for key, value in engine.run(inputs(3)).items():
        np.testing.assert_array_equal(other.run(inputs(3))[key], value)


@pytest.mark.parametrize("spoil", ["cut short", "no file"])
def test_weights_that_cannot_be_read_are_refused(name: str, tmp_path: Path, spoil: str) -> None:
    model = apart(tmp_path)
    (path,) = model.data.values()
    content = path.read_bytes()
    path.unlink()
    if spoil == "cut short":
        path.write_bytes(content[:-9])
    with pytest.raises(BundleError, match="export the bundle again"):
        installed(name).load(model, threads=1)


def test_weights_beyond_the_end_of_their_file_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="cannot load the graph"):
        installed(name).load(apart(tmp_path, offset_by=1), threads=1)


@pytest.mark.parametrize("known", [{}, {"0" * 64 + ".safetensors": Path("elsewhere")}], ids=["none", "another"])
def test_a_graph_that_takes_weights_from_an_unlisted_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: dict[str, Path]
) -> None:
    """Even where it lies in the working directory, from which libraries would take it."""
    content = apart(tmp_path).graph
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BundleError, match="does not list as data"):
        OnnxModel(content, known)


def test_an_output_stays_as_it_was_when_the_engine_runs_again(engine: backends.Engine) -> None:
    first = engine.run(inputs(3))
    kept = {key: value.copy() for key, value in first.items()}
    engine.run({key: value * 2 if key == "x" else value for key, value in inputs(3).items()})
    for key, value in kept.items():
        np.testing.assert_array_equal(first[key], value)
        first[key][:] = 0  # it is the caller's


def test_a_row_does_not_depend_on_its_batch_mates(name: str, engine: backends.Engine) -> None:
    given = inputs(4)
    first = engine.run(given)
    others = {"x": given["x"].copy(), "i": given["i"].copy()}
    others["x"][1:], others["i"][1:] = [[np.nan], [np.inf], [1e30]], [6, 0, 3]
    alone = engine.run({key: value[:1] for key, value in given.items()})
    for key, values in engine.run(others).items():
        np.testing.assert_array_equal(values[0], first[key][0])
        near(name, alone[key], first[key][:1])


def test_non_contiguous_inputs_are_read_correctly(name: str, engine: backends.Engine) -> None:
    given = inputs(4)
    turned = np.ascontiguousarray(given["x"].T).T
    near(name, engine.run({**given, "x": turned})["scaled"], np.tanh(given["x"] @ WEIGHTS))


def test_threads_that_run_one_engine_at_once_do_not_mix(name: str, engine: backends.Engine) -> None:
    wrong: list[int] = []

    def work(batch: int) -> None:
        given = inputs(batch)
        expected = np.tanh(given["x"] @ WEIGHTS)
        worst = max(np.abs(engine.run(given)["scaled"] - expected).max() for _ in range(50))
        if not worst <= TOLERANCE[name]:
            wrong.append(batch)

    workers = [threading.Thread(target=work, args=(batch,)) for batch in range(1, 5)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


@pytest.mark.parametrize(
    "spoil",
    [lambda given: {"x": given["x"]}, lambda given: {**given, "more": given["x"]}, lambda given: {**given, "x": given["x"][:, :3]}],
    ids=["missing", "unknown", "shape"],
)
def test_inputs_that_the_graph_does_not_take_are_refused(engine: backends.Engine, spoil: Any) -> None:
    with pytest.raises(BundleError):
        engine.run(spoil(inputs(2)))
    assert engine.run(inputs(2))["scaled"].shape == (2, 7)  # and it goes on


@pytest.mark.parametrize("content", [b"", b"no graph", graph()[:-40]], ids=["empty", "text", "cut short"])
def test_a_file_that_is_no_graph_is_refused(name: str, content: bytes) -> None:
    with pytest.raises(BundleError, match="export the bundle again"):
        installed(name).load(OnnxModel(content), threads=1)


def components() -> dict[str, Component]:
    """The distinct networks of the zoo."""
    bundles = [*zoo.candidates(), *zoo.withheld(), zoo.bundle(zoo.TAGGER)]
    found = {c.file.sha256: (f"{bundle.name} {name}", c) for bundle in bundles for name, c in bundle.components.items()}
    return dict(found.values())


@pytest.mark.parametrize("name", sorted(set(TOLERANCE) - {MEASURE}))
@pytest.mark.parametrize("network", sorted(components()))
def test_every_network_of_the_zoo_agrees_with_onnx_runtime(name: str, network: str) -> None:
    component = components()[network]
    model = component.onnx_model()
    engine, measure = (installed(n).load(model, threads=1) for n in (name, MEASURE))
    rng = np.random.default_rng(0)
    for batch in (1, 3):
        given = {}
        for key, tensor in component.inputs.items():
            shape = [batch if isinstance(size, str) else size for size in tensor.shape]
            given[key] = rng.integers(0, 30, shape) if tensor.dtype == "int64" else rng.standard_normal(shape).astype(tensor.dtype)
        if "timestep" in given:
            given["timestep"] = np.linspace(900, 100, batch, dtype=np.float32)
        found, expected = engine.run(given), measure.run(given)
        for key in component.outputs:
            near(name, found[key], expected[key])
    others = engine.run({key: np.concatenate([value[:1], value[:0:-1]]) for key, value in given.items()})
    for key in component.outputs:
        np.testing.assert_array_equal(others[key][0], found[key][0])  # whatever else is in the batch


@pytest.mark.parametrize("wrong", ["caffe", "onnxruntime:tpu", "openvino:int3", "torch:mps", "torch:bf16,fp16", ""])
def test_a_backend_that_does_not_exist_is_refused_by_name(wrong: str) -> None:
    if wrong.startswith("openvino"):
        pytest.importorskip("openvino")
    with pytest.raises(ConfigError, match="backend is"):
        backends.get(wrong)


@pytest.fixture
def without_cuda() -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("there is a CUDA execution provider")


@pytest.mark.usefixtures("without_cuda")
def test_a_fallback_is_a_warning_or_an_error_where_strict() -> None:
    tagger = zoo.bundle(zoo.TAGGER).components["tagger"]
    pool = EnginePool("onnxruntime:cuda")
    pool.get(tagger)
    assert pool.fallbacks == ["ONNX Runtime has no usable CUDAExecutionProvider, CPUExecutionProvider runs instead"]
    with pytest.raises(DeviceError, match="CPUExecutionProvider runs instead; install or choose another backend"):
        EnginePool("onnxruntime:cuda", strict=True).get(tagger)


def test_torch_without_a_gpu_reports_its_fallback_too(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    tagger = zoo.bundle(zoo.TAGGER).components["tagger"]
    pool = EnginePool("torch:cuda")
    pool.get(tagger)
    assert pool.fallbacks == ["torch finds no CUDA device, the CPU runs instead"]
    with pytest.raises(DeviceError, match="the CPU runs instead; install or choose another backend"):
        EnginePool("torch:cuda", strict=True).get(tagger)


@pytest.mark.usefixtures("without_cuda")
def test_a_verdict_warns_of_a_fallback(probe: Path) -> None:
    def verdict(backend: str) -> Any:
        return Attributor.open(["zoo:zoo-sd", "zoo:zoo-flux"], backend=backend, threads=1, references=1, steps=1)([probe])[0]

    fallen, plain = verdict("onnxruntime:cuda"), verdict("onnxruntime")
    assert [w for w in fallen.warnings if w not in plain.warnings] == [
        "ONNX Runtime has no usable CUDAExecutionProvider, CPUExecutionProvider runs instead"
    ]
    assert fallen.probability == plain.probability


@pytest.mark.parametrize("other", ["openvino", "torch"])
def test_attribution_by_another_backend_gives_the_same_answer(other: str, probe: Path) -> None:
    """In float32; in bfloat16 a picture may go the other way where two candidates are close."""
    installed(other)
    expected, found = (
        Attributor.open(["zoo:zoo-sd", "zoo:zoo-flux"], backend=name, threads=1, references=1, steps=4)([probe])[0]
        for name in (MEASURE, other)
    )
    assert found.provenance["backend"] == backends.get(other).version()
    assert [c.name for c in found.candidates] == [c.name for c in expected.candidates]
    assert abs(found.probability - expected.probability) <= 1e-3


@pytest.fixture(scope="module")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture by zoo-sd."""
    from PIL import Image

    from resynth_fast.candidates.engine import EngineCandidate

    path = tmp_path_factory.mktemp("probe") / "probe.png"
    Image.fromarray(EngineCandidate(zoo.bundle("zoo-sd"), EnginePool(threads=1)).make([zoo.prompts()[0]], [1 << 40], 8)[0]).save(path)
    return path
