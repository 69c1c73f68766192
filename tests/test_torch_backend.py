"""The torch backend's table, operator by operator against ONNX Runtime; attention; refusals; export of a module."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")

from onnx import TensorProto, helper, numpy_helper, shape_inference  # noqa: E402

from resynth_fast import backends, zoo  # noqa: E402
from resynth_fast.backends.onnx_model import OnnxModel  # noqa: E402
from resynth_fast.backends.torch.operators import ATTENTION, OPERATORS  # noqa: E402
from resynth_fast.backends.torch.translation import translate  # noqa: E402
from resynth_fast.errors import BundleError  # noqa: E402

CPU = torch.device("cpu")


def normal(seed: int, *shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


X, Y, W, V = normal(0, 2, 4, 6, 6), normal(1, 2, 4, 6, 6), normal(2, 8, 2, 3, 3), normal(3, 8)
MATRIX, BIAS, UNIT = normal(4, 5, 6), V[:5], np.linspace(0.5, 2, 6, dtype=np.float32)
HALF, YES, WHOLE = np.float32(0.5), X > 0, np.arange(-7, 17).reshape(4, 6)
INDICES = np.array([[1, 3], [-2, 0]])
END = np.iinfo(np.int64).max


def sizes(*numbers: int) -> Any:
    return np.array(numbers, np.int64)


CONV = {"kernel_shape": [3, 3]}
CASES: list[tuple[str, list[Any], dict[str, Any]]] = [
    *((kind, [X], {}) for kind in ("Abs", "Cos", "Erf", "Exp", "Identity", "Neg", "Reciprocal", "Relu", "Sigmoid", "Sin", "Tanh")),
    *((kind, [np.abs(X) + 1], {}) for kind in ("Log", "Sqrt")),
    *((kind, [X, Y], {}) for kind in ("Add", "Div", "Max", "Min", "Mul", "Sub")),
    *((kind, [X, HALF], {}) for kind in ("Add", "Div", "Mul", "Sub")),
    ("Div", [WHOLE, sizes(4)], {}),
    ("And", [YES, Y > 0], {}),
    ("Not", [YES], {}),
    ("ArgMax", [X], {"axis": -1, "keepdims": 0}),
    ("ArgMax", [X], {"axis": 1}),
    ("Cast", [X * 9], {"to": TensorProto.INT64}),
    ("Cast", [WHOLE], {"to": TensorProto.BOOL}),
    ("Clip", [X, np.float32(-0.5), HALF], {}),
    ("Concat", [X, Y, X], {"axis": 1}),
    ("Conv", [X, W, V], {**CONV, "group": 2, "strides": [2, 1], "pads": [1, 1, 1, 1], "dilations": [1, 2]}),
    ("Conv", [X, W], {**CONV, "group": 2, "pads": [0, 1, 2, 0]}),
    ("DepthToSpace", [X], {"blocksize": 2, "mode": "CRD"}),
    ("Einsum", [X, Y], {"equation": "nchw,nckw->nhk"}),
    ("Equal", [WHOLE, sizes(3)], {}),
    ("Expand", [X[:, :1], sizes(3, 1, 4, 1, 6)], {}),
    ("Gather", [X, INDICES], {"axis": 1}),
    ("Gather", [MATRIX, INDICES], {}),
    ("GatherND", [X, np.array([[0, 1], [1, 3]])], {}),
    ("Gelu", [X], {"approximate": "tanh"}),
    ("Gelu", [X], {}),
    ("Gemm", [X[0, 0], MATRIX, BIAS], {"transB": 1}),
    ("Gemm", [MATRIX, X[0, 0, :5], UNIT], {"transA": 1, "alpha": 0.5, "beta": 2.0}),
    ("InstanceNormalization", [X, UNIT[:4], V[:4]], {"epsilon": 1e-6}),
    ("IsNaN", [np.where(YES, X, np.nan)], {}),
    ("LayerNormalization", [X, UNIT, UNIT * 2], {"epsilon": 1e-6}),
    ("LayerNormalization", [X, np.ones((6, 6), np.float32)], {"axis": 2}),
    ("MatMul", [X, Y], {}),
    ("Pad", [X, sizes(0, 1, 2, 3), np.float32(2), sizes(1, -1)], {"mode": "constant"}),
    ("Pad", [X, sizes(0, 0, 1, 0, 0, 0, 0, 2)], {}),
    ("Pow", [np.abs(X), HALF], {}),
    ("Range", [sizes(2)[0], sizes(11)[0], sizes(3)[0]], {}),
    ("ReduceMean", [X, sizes(-1, 1)], {"keepdims": 0}),
    ("ReduceSum", [X, sizes(2)], {}),
    ("Reshape", [X, sizes(0, -1, 12)], {}),
    (
        "Resize",
        [X, None, np.array([1, 1, 2, 3], np.float32)],
        {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"},
    ),
    ("Slice", [X, sizes(1, -END), sizes(END, -2), sizes(1, 3), sizes(2, 1)], {}),
    ("Slice", [X, sizes(0), sizes(1)], {}),
    ("Softmax", [X], {"axis": 1}),
    ("Split", [X[:, :, :5]], {"axis": 2, "num_outputs": 2}),
    ("Split", [X, sizes(1, 3)], {"axis": 1}),
    ("Squeeze", [X[:1, :1]], {}),
    ("Squeeze", [X[:, :1], sizes(-3)], {}),
    ("Transpose", [X], {"perm": [2, 0, 3, 1]}),
    ("Unsqueeze", [X, sizes(-1, 1)], {}),
    ("Where", [YES, X, HALF], {}),
]


def model(nodes: list[Any], inputs: dict[str, Any], outputs: list[str], stored: dict[str, Any] | None = None) -> OnnxModel:
    made = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape) for name, value in inputs.items()],
        [helper.make_empty_tensor_value_info(name) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (stored or {}).items()],
    )
    whole = helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return OnnxModel(shape_inference.infer_shapes(whole).SerializeToString())


def compare(graph: OnnxModel, inputs: dict[str, Any], rtol: float = 1e-5) -> Any:
    found, expected = (backends.get(name).load(graph, threads=1).run(inputs) for name in ("torch", "onnxruntime"))
    assert list(found) == list(expected)
    for name, values in expected.items():
        assert (found[name].shape, found[name].dtype) == (values.shape, values.dtype)
        np.testing.assert_allclose(found[name], values, rtol=rtol, atol=1e-5)
    return found


@pytest.mark.parametrize(("kind", "inputs", "attributes"), CASES, ids=[f"{i}-{case[0]}" for i, case in enumerate(CASES)])
def test_an_operator_computes_as_in_onnx_runtime(kind: str, inputs: list[Any], attributes: dict[str, Any]) -> None:
    """Sizes, numbers and weights are constants; what is the first input, and any other of its rank, comes from outside."""
    names = ["" if value is None else f"x{i}" for i, value in enumerate(inputs)]
    outside = {
        n: v for i, (n, v) in enumerate(zip(names, inputs, strict=True)) if v is not None and (i == 0 or v.ndim == 4) and kind != "Range"
    }
    stored = {n: v for n, v in zip(names, inputs, strict=True) if v is not None and n not in outside}
    parts = attributes.get("num_outputs", 2) if kind == "Split" else 1
    outputs = [f"y{i}" for i in range(parts)]
    compare(model([helper.make_node(kind, names, outputs, **attributes)], outside, outputs, stored), outside)


def test_every_operator_of_the_table_is_compared() -> None:
    assert {case[0] for case in CASES} | {"Shape"} == set(OPERATORS) - {ATTENTION}


def test_sizes_may_come_from_shapes() -> None:
    """Each operator on sizes once: (2, 4, 6, 6) is made (6, 6, 8), and its first size counts a range."""
    node, stored = (
        helper.make_node,
        {"zero": sizes(0), "two": sizes(2), "four": sizes(4), "rest": sizes(-1), "start": sizes(0)[0], "one": sizes(1)[0]},
    )
    nodes = [
        node("Shape", ["x"], ["shape"]),
        node("Slice", ["shape", "two", "four", "zero"], ["ends"]),
        node("Reshape", ["ends", "rest"], ["flat"]),
        node("Concat", ["flat", "rest"], ["target"], axis=0),
        node("Reshape", ["x", "target"], ["y"]),
        node("Shape", ["x"], ["few"], start=1, end=2),
        node("Squeeze", ["few"], ["count"]),
        node("Range", ["start", "count", "one"], ["range"]),
        node("Unsqueeze", ["count", "zero"], ["again"]),
        node("Concat", ["two", "again"], ["wide"], axis=0),
        node("Expand", ["range", "wide"], ["z"]),
    ]
    compare(model(nodes, {"x": X}, ["y", "z"], stored), {"x": X})


def test_other_arithmetic_with_sizes_is_refused() -> None:
    nodes = [helper.make_node("Shape", ["x"], ["shape"]), helper.make_node("Mul", ["shape", "shape"], ["y"])]
    with pytest.raises(BundleError, match="does not translate Mul of sizes"):
        backends.get("torch").load(model(nodes, {"x": X}, ["y"]), threads=1)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("rank", [3, 4])
def test_attention_is_found_and_computes_the_same(masked: bool, rank: int) -> None:
    shape = (2, 3, 5, 8)[4 - rank :]
    inputs = {"q": normal(0, *shape), "k": normal(1, *shape[:-2], 8, 7), "v": normal(2, *shape[:-2], 7, 4)}
    mask = np.where(np.random.default_rng(3).random((5, 7)) < 0.3, -1e4, 0).astype(np.float32)
    nodes = [
        helper.make_node("MatMul", ["q", "k"], ["s"]),
        *([helper.make_node("Add", ["s", "m"], ["t"])] if masked else []),
        helper.make_node("Softmax", ["t" if masked else "s"], ["p"], axis=-1),
        helper.make_node("MatMul", ["p", "v"], ["y"]),
    ]
    graph = model(nodes, inputs, ["y"], {"m": mask} if masked else {})
    compare(graph, inputs)
    assert sum(node.target is OPERATORS[ATTENTION] for node in translate(graph, CPU).module.graph.nodes) == 1


def test_attention_whose_scores_another_node_reads_is_not_fused() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "x"], ["s"]),
        helper.make_node("Softmax", ["s"], ["p"], axis=-1),
        helper.make_node("MatMul", ["p", "x"], ["y"]),
    ]
    graph = model(nodes, {"x": X}, ["y", "p"])
    compare(graph, {"x": X})
    assert all(node.target is not OPERATORS[ATTENTION] for node in translate(graph, CPU).module.graph.nodes)


@pytest.mark.parametrize(
    ("kind", "attributes", "words"),
    [
        ("Selu", {}, "no translation of operator ai.onnx Selu"),
        ("DepthToSpace", {"blocksize": 2, "mode": "DCR"}, "DepthToSpace where mode is 'CRD', not 'DCR'"),
        ("Cast", {"to": TensorProto.STRING}, "Cast to type 8"),
    ],
)
def test_an_operator_without_a_translation_is_refused_by_name(kind: str, attributes: dict[str, Any], words: str) -> None:
    graph = model([helper.make_node(kind, ["x"], ["y"], **attributes)], {"x": X}, ["y"])
    with pytest.raises(BundleError, match=words):
        backends.get("torch").load(graph, threads=1)


def test_a_network_becomes_an_exported_program_of_any_batch_size() -> None:
    component = zoo.bundle("zoo-sd").components["decoder"]
    made = translate(component.onnx_model(), CPU)
    latents = torch.from_numpy(normal(0, 3, *component.inputs["latents"].shape[1:]))
    program = torch.export.export(made.module, (latents[:2],), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=False)
    for rows in (latents, latents[:1]):
        assert torch.equal(program.module()(rows)[0], made.module(rows)[0])


def test_deleting_an_engine_frees_its_weights_at_once() -> None:
    """A memory budget needs this: the garbage collector, which finds circles of references, runs later."""
    component = zoo.bundle("zoo-sd").components["text"]
    engine = backends.get("torch").load(component.onnx_model(), threads=1)
    weights = [weakref.ref(each) for each in engine._module.parameters()]
    gc.collect()
    gc.disable()
    try:
        del engine
        assert weights
        assert not any(each() is not None for each in weights)
    finally:
        gc.enable()


def test_in_16_bits_only_products_are_narrow() -> None:
    made = translate(zoo.bundle("zoo-sd").components["decoder"].onnx_model(), CPU, torch.bfloat16)
    seen: dict[Any, set[Any]] = {}

    class Watch(torch.fx.Interpreter):
        def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
            seen.setdefault(target, set()).update(a.dtype for a in args if isinstance(a, torch.Tensor) and a.is_floating_point())
            return super().call_function(target, args, kwargs)

    (image,) = Watch(made.module).run(torch.from_numpy(normal(0, 1, *made.inputs["latents"].shape[1:])))
    assert seen[OPERATORS["Conv"]] == {torch.bfloat16}
    assert seen[OPERATORS["InstanceNormalization"]] == {torch.float32}
    assert image.dtype == torch.float32


@pytest.mark.gpu
@pytest.mark.parametrize("variant", ["cuda", "cuda,bf16", "cuda,compile"])
def test_a_gpu_computes_as_the_cpu_does(variant: str) -> None:
    component = zoo.bundle("zoo-sd").components["decoder"]
    gpu, cpu = (backends.get(name).load(component.onnx_model(), threads=1) for name in (f"torch:{variant}", "torch"))
    assert gpu.fallback == ""
    for rows in (1, 4, 1, 4):
        inputs = {"latents": normal(rows, rows, *component.inputs["latents"].shape[1:])}
        found, expected = gpu.run(inputs)["image"], cpu.run(inputs)["image"]
        assert np.abs(found - expected).max() <= (6e-2 if "bf16" in variant else 5e-3)
