"""Canonical torch modules become ONNX graphs: one opset, dynamic batch, fixed names, weights stored in 16 bits.

The same weights give the same bytes: whatever differs between two exports or two machines (stack traces, metadata,
generated names) is taken out.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
import logging
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxscript.optimizer
import torch
from onnx import numpy_helper

from resynth_fast.errors import ConfigError

OPSET = 20
HALVED_FROM = 256  # elements; below, a Cast costs more than it saves
MAX_GRAPH_BYTES = (1 << 31) - 1  # protobuf's own

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Network:
    """One component, ready to be exported.

    `module` takes keyword tensors with the contract's names; `example(batch)` makes such inputs, batch first, other
    ones for each batch size; `outputs` names what the module returns.
    """

    module: torch.nn.Module
    example: Callable[[int], Tensors]
    outputs: tuple[str, ...]
    prepare: Callable[[torch.nn.Module], None] = lambda module: None
    """Applied to the exported copy of `module` alone: swaps what cannot be exported for what computes the same."""
    optimize: bool = True
    """The exporter's rewriting takes an addend below 1e-8 for zero: off where one keeps a division from 0 / 0."""


@torch.no_grad()
def round_weights(*modules: torch.nn.Module | None) -> None:
    """Round all weights to float16 and back, in place: what is compared is then exactly what is stored."""
    for module in modules:
        for tensor in () if module is None else (*module.parameters(), *module.buffers()):
            if tensor.is_floating_point() and torch.isfinite(rounded := tensor.half().float()).all():
                tensor.copy_(rounded)  # the few that float16 cannot hold keep their values, and are stored in 32 bits


def weights_sha256(*modules: torch.nn.Module) -> str:
    """Hash of names, shapes and values of all weights, however they were stored."""
    digest = hashlib.sha256()
    for module in modules:
        for name, tensor in sorted(module.state_dict().items()):
            digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.detach().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


def export(network: Network, *, halved: bool = True) -> bytes:
    """The ONNX graph of `network`; `halved` stores weights that were rounded (see `round_weights`) in 16 bits."""
    example = network.example(2)  # a batch of one would be taken for a constant
    batch = torch.export.Dim("batch")
    module = copy.deepcopy(network.module).eval()
    network.prepare(module)
    _name_inputs(module, example)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            module, (), kwargs=example, dynamic_shapes={name: {0: batch} for name in example},
            input_names=list(example), output_names=list(network.outputs), opset_version=OPSET,
            dynamo=True, external_data=False, optimize=network.optimize, verbose=False, custom_translation_table=_translations(),
        )  # fmt: skip
    assert program is not None
    if not network.optimize:
        onnxscript.optimizer.fold_constants_ir(program.model)
        onnxscript.optimizer.remove_unused_nodes(program.model)
    model = program.model_proto
    clean(model)
    rename(model)
    if halved:
        _halve(model)
    if (size := model.ByteSize()) > MAX_GRAPH_BYTES:
        raise ConfigError(
            f"a network of {size / 1e9:.1f} GB does not fit into one graph ({MAX_GRAPH_BYTES / 1e9:.1f} GB at most); export it in fp16"
        )
    onnx.checker.check_model(model)
    return model.SerializeToString(deterministic=True)


def _name_inputs(module: torch.nn.Module, names: Iterable[str]) -> None:
    """Let a `forward` that takes **inputs take those called `names`: torch.export follows named ones alone."""
    kind = type(module)
    if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in inspect.signature(kind.forward).parameters.values()):
        return

    def forward(self: torch.nn.Module, **inputs: torch.Tensor) -> Any:
        return kind.forward(self, **inputs)

    parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in ("self", *names)]
    forward.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    module.__class__ = type(kind.__name__, (kind,), {"forward": forward})


def describe(graph: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Inputs and outputs of a graph, as a manifest lists them."""
    model = onnx.load_from_string(graph)
    return _table(model.graph.input), _table(model.graph.output)


def _translations() -> dict[Any, Any]:
    """What the exporter translates into a graph that ONNX Runtime refuses."""
    from onnxscript import opset20 as op

    def squeeze(value: Any, dim: int) -> Any:
        """In torch, squeezing a dimension that is not 1 does nothing; in ONNX it is an error."""
        return op.Squeeze(value, op.Constant(value_ints=[dim])) if value.shape[dim] == 1 else op.Identity(value)

    return {torch.ops.aten.squeeze.dim: squeeze}


def _table(values: Iterable[Any]) -> dict[str, Any]:
    return {
        value.name: {
            "dtype": np.dtype(onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)).name,
            "shape": [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim],
        }
        for value in values
    }


def clean(model: Any) -> None:
    """Take out what tells of the machine and the day rather than of the network."""
    del model.metadata_props[:]
    model.doc_string = model.producer_version = ""
    model.producer_name = "resynth_fast"
    graph = model.graph
    graph.name, graph.doc_string = "network", ""
    del graph.value_info[:]  # the runtime infers shapes again anyway
    del graph.metadata_props[:]
    for entry in (*graph.node, *graph.initializer, *graph.input, *graph.output):
        entry.doc_string = ""
        del entry.metadata_props[:]
    assert not model.functions, "the optimiser inlines every function"


def rename(model: Any) -> None:
    """Number nodes, weights and values in the order of the graph; inputs and outputs keep the contract's names."""
    graph = model.graph
    names = {value.name: value.name for value in (*graph.input, *graph.output)}
    for i, tensor in enumerate(graph.initializer):
        tensor.name = names.setdefault(tensor.name, f"w{i}")
    for i, node in enumerate(graph.node):
        assert not any(attribute.HasField("g") for attribute in node.attribute), "no network here branches"
        node.name = f"n{i}"
        node.input[:] = [names[name] if name else "" for name in node.input]
        node.output[:] = [names.setdefault(name, f"v{i}.{j}") if name else "" for j, name in enumerate(node.output)]


def _halve(model: Any) -> None:
    """Store large float32 weights as float16 followed by a Cast, where nothing is lost by it.

    Constants that the exporter computed (rotary tables, folded products) do not survive the rounding and stay as they are.
    """
    graph = model.graph
    casts = []
    for tensor in graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT or np.prod(tensor.dims) < HALVED_FROM:
            continue
        values = numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            halved = values.astype(np.float16)
        if not np.array_equal(halved.astype(np.float32), values):
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(halved, f"{name}.half"))
        casts.append(onnx.helper.make_node("Cast", [f"{name}.half"], [name], name=f"{name}.cast", to=onnx.TensorProto.FLOAT))
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend([*casts, *nodes])
