"""Translate an ONNX graph to a torch.fx graph: each node is a call of a function of `operators`, weights are parameters."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import onnx
import torch
from onnx import helper, numpy_helper

from ...errors import BundleError
from ..onnx_model import OnnxModel
from .operators import ATTENTION, DTYPES, NARROW, ON_SIZES, ONLY, OPERATORS, TAKES_NUMBERS, TAKES_SIZES, WIDE

DOMAINS = ("", "ai.onnx")
OPSETS = range(18, 23)
"""Opsets in which the operators of the table mean the same."""


@dataclass(frozen=True, slots=True)
class Input:
    """An input of a graph. A size is a number, or a name if any size is allowed."""

    dtype: npt.DTypeLike
    shape: tuple[int | str, ...]

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether an array of this shape is allowed."""
        return len(shape) == len(self.shape) and all(isinstance(a, str) or a == b for a, b in zip(self.shape, shape, strict=True))


@dataclass(frozen=True, slots=True)
class Translated:
    """A module that takes the graph's inputs in their order and returns a tuple of its outputs, floating-point ones in float32."""

    module: torch.fx.GraphModule
    inputs: dict[str, Input]
    outputs: tuple[str, ...]


def translate(model: OnnxModel, device: torch.device, narrow: torch.dtype | None = None) -> Translated:
    """Translate `model`; matrix products and convolutions compute in `narrow` if it is given.

    BundleError if the graph is invalid or an operator has no translation.
    """
    try:
        proto = onnx.load_from_string(model.graph)
        onnx.checker.check_model(str(model.path) if model.data else proto)
        folder = str(model.path.parent) if model.path else ""
        stored = {each.name: torch.from_numpy(numpy_helper.to_array(each, folder).copy()) for each in proto.graph.initializer}
    except Exception as error:  # protobuf's own classes and onnx's share no public base
        raise BundleError(f"torch cannot load the graph ({str(error)[:300]}); export the bundle again") from error
    if [opset.version for opset in proto.opset_import if opset.domain in DOMAINS and opset.version not in OPSETS]:
        raise BundleError(f"the torch backend takes graphs of opset {OPSETS[0]} to {OPSETS[-1]}; export the bundle again")
    module = _Translation(proto.graph, stored, device, narrow).module
    inputs = {each.name: _input(each) for each in proto.graph.input if each.name not in stored}
    return Translated(module, inputs, tuple(each.name for each in proto.graph.output))


def _input(value: Any) -> Input:
    kind = value.type.tensor_type
    return Input(helper.tensor_dtype_to_np_dtype(kind.elem_type), tuple(dim.dim_param or dim.dim_value for dim in kind.shape.dim))


class _Translation:
    """The translation of one graph.

    A value is a node of the new graph, a constant (a tensor or sizes), or None for an optional input that is absent.
    """

    def __init__(self, graph: Any, stored: Mapping[str, torch.Tensor], device: torch.device, narrow: torch.dtype | None) -> None:
        self.device, self.narrow = device, narrow
        self.graph = torch.fx.Graph()
        self.root = torch.nn.Module()
        self.sizes: set[str] = set()
        self.constants: dict[int, tuple[torch.Tensor, torch.fx.Node]] = {}
        self.values: dict[str, Any] = {"": None, **stored}
        self.values |= {each.name: self.graph.placeholder(each.name) for each in graph.input if each.name not in self.values}
        for node in _with_attention(graph):
            self._add(node)
        self.graph.output(tuple(self._argument(self._floats(self.values[each.name], torch.float32)) for each in graph.output))
        self.graph.eliminate_dead_code()
        self.module = torch.fx.GraphModule(self.root, self.graph).to(device)
        self.module.graph.owning_module = (
            None  # breaks a reference cycle, which would keep the weights of an evicted engine until a garbage collection
        )

    def _add(self, node: Any) -> None:
        attributes = {each.name: _text(helper.get_attribute_value(each)) for each in node.attribute}
        if node.op_type == "Constant":
            self.values[node.output[0]] = _constant(attributes)
            return
        _check(node, attributes)
        result = self._call(node, attributes)
        if len(node.output) == 1:
            self.values[node.output[0]] = result
            return
        parts = range(len(node.output))
        several = [self.graph.call_function(operator.getitem, (result, i)) for i in parts] if isinstance(result, torch.fx.Node) else result
        self.values |= dict(zip(node.output, several, strict=True))

    def _call(self, node: Any, attributes: dict[str, Any]) -> Any:
        kind, inputs = node.op_type, [self.values[name] for name in node.input]
        first = 0 if kind == "Range" else 1  # index of the first input that is a size
        of_sizes = kind in ON_SIZES and bool(self.sizes & set(node.input if kind == "Concat" else node.input[:1]))
        if of_sizes or kind == "Shape":
            self.sizes |= set(node.output)
        elif self.sizes & set(node.input[: first if kind in TAKES_SIZES else None]):
            raise BundleError(f"the torch backend does not translate {kind} of sizes; choose another backend")
        if of_sizes or kind in TAKES_SIZES:
            inputs = [value if i < first and not of_sizes else _python(value) for i, value in enumerate(inputs)]
        function = (ON_SIZES if of_sizes else OPERATORS)[kind]
        if not any(isinstance(value, torch.fx.Node) for value in inputs) and kind != "Range":
            return function(*inputs, **attributes)  # constant: computed once, here
        if kind == "Range":
            attributes["device"] = self.device
        if kind in TAKES_NUMBERS:
            inputs = [value.item() if isinstance(value, torch.Tensor) and value.dim() == 0 else value for value in inputs]
        if kind in NARROW | WIDE:
            inputs = [self._floats(value, self.narrow if self.narrow and kind in NARROW else torch.float32) for value in inputs]
        return self.graph.call_function(function, tuple(map(self._argument, inputs)), attributes)

    def _floats(self, value: Any, dtype: torch.dtype) -> Any:
        """Cast `value` to `dtype` if it is a floating-point tensor. Without a narrow type everything is float32 already."""
        if self.narrow is None:
            return value
        if isinstance(value, torch.fx.Node):
            return self.graph.call_function(floats, (value, dtype))
        return floats(value, dtype) if isinstance(value, torch.Tensor) else value

    def _argument(self, value: Any) -> Any:
        """A constant as a parameter or buffer of the module, one for all its uses."""
        if not isinstance(value, torch.Tensor):
            return value
        if id(value) not in self.constants:
            name = f"constant_{len(self.constants)}"
            if value.is_floating_point():
                self.root.register_parameter(name, torch.nn.Parameter(value, requires_grad=False))
            else:
                self.root.register_buffer(name, value)
            self.constants[id(value)] = value, self.graph.get_attr(name)
        return self.constants[id(value)][1]


def floats(value: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Cast `value` to `dtype`; integers stay as they are."""
    return value.to(dtype) if value.is_floating_point() else value


def _check(node: Any, attributes: Mapping[str, Any]) -> None:
    kind = node.op_type
    if node.domain not in DOMAINS or kind not in OPERATORS:
        raise BundleError(f"the torch backend has no translation of operator {node.domain or 'ai.onnx'} {kind}; choose another backend")
    for name, value in ONLY.get(kind, {}).items():
        if attributes.get(name, value) != value:
            raise BundleError(
                f"the torch backend translates {kind} where {name} is {value!r}, not {attributes[name]!r}; choose another backend"
            )
    if kind == "Cast" and attributes["to"] not in DTYPES:
        raise BundleError(f"the torch backend does not translate Cast to type {attributes['to']}; choose another backend")


def _with_attention(graph: Any) -> list[Any]:
    """The graph's nodes, with MatMul → (Add of a mask →) Softmax → MatMul fused wherever no other node reads an intermediate result."""
    producers = {name: node for node in graph.node for name in node.output}
    uses = Counter(name for node in graph.node for name in node.input) + Counter(each.name for each in graph.output)

    def producer(name: str, *kinds: str) -> Any:
        node = producers.get(name)
        return node if node is not None and node.op_type in kinds and uses[name] == 1 else None

    replaced: dict[str, Any] = {}
    for node in graph.node:
        softmax = producer(node.input[0], "Softmax") if node.op_type == "MatMul" else None
        if softmax is None or any(a.name == "axis" and a.i != -1 for a in softmax.attribute):
            continue
        scores, masks = producer(softmax.input[0], "Add", "MatMul"), []
        between = [softmax]
        if scores is not None and scores.op_type == "Add":
            between.append(scores)
            masks = [scores.input[1]]
            scores = producer(scores.input[0], "MatMul")
        if scores is not None:
            fused = helper.make_node(ATTENTION, [*scores.input, node.input[1], *masks], node.output)
            replaced |= {each.output[0]: None for each in [*between, scores]} | {node.output[0]: fused}
    nodes = [replaced.get(node.output[0], node) for node in graph.node]
    return [node for node in nodes if node is not None]


def _constant(attributes: Mapping[str, Any]) -> torch.Tensor:
    [(name, value)] = attributes.items()
    if name == "value":
        return torch.from_numpy(numpy_helper.to_array(value).copy())
    return torch.tensor(value, dtype=torch.float32 if "float" in name else torch.int64)


def _text(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


def _python(value: Any) -> Any:
    """A constant as a number or a tuple of numbers; a node of the graph unchanged."""
    if not isinstance(value, torch.Tensor):
        return value
    numbers = value.tolist()
    return tuple(numbers) if isinstance(numbers, list) else numbers
