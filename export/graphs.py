"""Export canonical torch modules to ONNX graphs: one opset, dynamic batch, fixed names, weights stored in 16 bits.

The same weights give the same bytes: everything that differs between exports or machines (stack traces, metadata, generated
names) is removed.
"""

from __future__ import annotations

import copy
import gc
import inspect
import logging
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxscript.optimizer
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from resynth_fast.backends.onnx_model import OnnxModel
from resynth_fast.errors import ConfigError

from .weights import Weights, widened

OPSET = 20
MAX_GRAPH_BYTES = (1 << 31) - 1  # the limit of protobuf

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Network:
    """One component, ready to be exported.

    `module` takes keyword tensors with the names of the contract. `example(batch)` makes such inputs, batch first, different
    for each batch size. `outputs` names the tensors that the module returns.
    """

    module: torch.nn.Module
    example: Callable[[int], Tensors]
    outputs: tuple[str, ...]
    prepare: Callable[[torch.nn.Module], None] = lambda module: None
    """Applied to a copy of `module` before export: replaces parts that cannot be exported by equivalent ones."""
    optimize: bool = True
    """Whether the exporter may rewrite the graph. It takes an addend below 1e-8 for zero: off where such an addend prevents 0 / 0."""


def export(network: Network, path: Path, *, halved: bool = True) -> OnnxModel:
    """Write the ONNX graph of `network` to `path`; large weights go to a file beside it.

    `halved` stores rounded weights (see `weights`) in 16 bits.
    """
    with widened(network.module):
        model, data = _export(network, path.parent, halved)
        if data:
            gc.collect()  # reference cycles of the exporter hold the widened weights
    if (size := model.ByteSize()) > MAX_GRAPH_BYTES:
        raise ConfigError(
            f"the graph has {size / 1e9:.1f} GB without its weights; "
            f"at most {MAX_GRAPH_BYTES / 1e9:.1f} GB can be written: export a smaller model"
        )
    path.write_bytes(graph := model.SerializeToString(deterministic=True))
    onnx.checker.check_model(path)
    return OnnxModel(graph, {data.name: data} if data else {}, path)


def _export(network: Network, folder: Path, halved: bool) -> tuple[Any, Path | None]:
    """The graph and the file of its weights, if there is one."""
    program = _trace(network)
    weights = Weights(program.model)
    model = program.model_proto
    clean(model)
    weights.rename(rename(model))
    if halved:
        weights.halve(model)
    return model, weights.put(model, folder)


def _trace(network: Network) -> Any:
    """The exporter's program; it shares the module's weights."""
    example = network.example(2)  # the exporter takes a batch of one for a constant
    batch = torch.export.Dim("batch")
    tensors = (*network.module.parameters(), *network.module.buffers())
    module = copy.deepcopy(network.module, {id(tensor): tensor for tensor in tensors}).eval()
    network.prepare(module)
    _name_inputs(module, example)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            module,
            (),
            kwargs=example,
            dynamic_shapes={name: {0: batch} for name in example},
            input_names=list(example),
            output_names=list(network.outputs),
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            optimize=network.optimize,
            verbose=False,
            custom_translation_table=_translations(),
        )
    assert program is not None
    if not network.optimize:
        onnxscript.optimizer.fold_constants_ir(program.model)
        onnxscript.optimizer.remove_unused_nodes(program.model)
    return program


def _name_inputs(module: torch.nn.Module, names: Iterable[str]) -> None:
    """Give a `forward` that takes **inputs the named parameters `names`: torch.export supports only named ones."""
    kind = type(module)
    if all(parameter.kind is not parameter.VAR_KEYWORD for parameter in inspect.signature(kind.forward).parameters.values()):
        return

    def forward(self: torch.nn.Module, **inputs: torch.Tensor) -> Any:
        return kind.forward(self, **inputs)

    parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in ("self", *names)]
    forward.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    module.__class__ = type(kind.__name__, (kind,), {"forward": forward})


@torch.no_grad()
def flops(network: Network) -> int:
    """FLOP of one row: matrix products, convolutions and attention, two for a multiplication and its addition."""
    # Fused attention is counted only on some devices.
    with widened(network.module), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        network.module.eval()(**network.example(1))
    return int(counter.get_total_flops())


def describe(graph: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Inputs and outputs of a graph, in the form of a manifest."""
    model = onnx.load_from_string(graph)
    return _table(model.graph.input), _table(model.graph.output)


def _translations() -> dict[Any, Any]:
    """Replacements for operators that the exporter translates into a graph that ONNX Runtime refuses."""
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
    """Remove everything that depends on the machine or the day rather than on the network."""
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


def rename(model: Any) -> dict[str, str]:
    """Number nodes, weights and values in the order of the graph; inputs and outputs keep their names. Returns old name → new."""
    graph = model.graph
    names = {value.name: value.name for value in (*graph.input, *graph.output)}
    for i, tensor in enumerate(graph.initializer):
        tensor.name = names.setdefault(tensor.name, f"w{i}")
    for i, node in enumerate(graph.node):
        assert not any(attribute.HasField("g") for attribute in node.attribute), "no network here branches"
        node.name = f"n{i}"
        node.input[:] = [names[name] if name else "" for name in node.input]
        node.output[:] = [names.setdefault(name, f"v{i}.{j}") if name else "" for j, name in enumerate(node.output)]
    return names
