"""Weights in memory and on disk, without ever holding a network of gigabytes twice.

A checkpoint's networks rest in 16 bits and are widened to 32 while they are traced or run. What a graph keeps inside
is filled in at the very end; what is too large for that is streamed to a safetensors file, whose payload ONNX reads as
external data.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir
import torch

from resynth_fast.bundle import DATA_SUFFIX

HALVED_FROM = 256  # elements; for fewer, a Cast costs more than it saves
EXTERNAL_FROM = 128 << 20  # bytes of all weights; protobuf is limited to 2 GiB, and copies what it reads or writes several times

DTYPES = {onnx.TensorProto.FLOAT: (np.float32, "F32"), onnx.TensorProto.FLOAT16: (np.float16, "F16")}


@torch.no_grad()
def round_weights(*modules: torch.nn.Module | None) -> None:
    """Round all weights to float16 and back, in place: the compared weights are then exactly the stored ones."""
    for module in modules:
        for tensor in () if module is None else (*module.parameters(), *module.buffers()):
            if (halved := _halved(tensor)) is not None:
                tensor.copy_(halved)


def rest(module: torch.nn.Module) -> None:
    """Round all weights as `round_weights` does, and hold parameters in 16 bits. To compute with them, see `widened`."""
    for parameter in module.parameters():
        if (halved := _halved(parameter.data)) is not None:
            parameter.data = halved
    for buffer in module.buffers():
        if (halved := _halved(buffer)) is not None:
            buffer.copy_(halved)


@contextmanager
def widened(*modules: torch.nn.Module) -> Iterator[None]:
    """Hold the weights that `rest` put into 16 bits as float32 while open, so that the modules can compute."""
    resting = {parameter for module in modules for parameter in module.parameters() if parameter.dtype == torch.float16}
    for parameter in resting:
        parameter.data = parameter.data.float()
    try:
        yield
    finally:
        for parameter in resting:
            parameter.data = parameter.data.half()


def _halved(tensor: torch.Tensor) -> torch.Tensor | None:
    """The tensor in float16; None if float16 cannot represent it: it is then stored in 32 bits."""
    if tensor.dtype not in (torch.float32, torch.bfloat16, torch.float64):
        return None
    halved = tensor.detach().half()
    return halved if bool(torch.isfinite(halved).all()) else None


def weights_sha256(*modules: torch.nn.Module) -> str:
    """Hash of names, shapes and values of all weights, independent of how they are stored."""
    digest = hashlib.sha256()
    for module in modules:
        for name, tensor in sorted(module.state_dict().items()):
            digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.detach().float().contiguous().numpy().tobytes())
    return digest.hexdigest()


class Weights:
    """The large weights of a graph by name, still in torch's memory; the graph has empty tensors in their place."""

    def __init__(self, model: Any) -> None:
        """Move the large weights out of an onnx_ir model."""
        self._sources: dict[str, Any] = {}
        self._halves: set[str] = set()
        for name, value in model.graph.initializers.items():
            tensor = value.const_value
            if tensor.dtype == onnx_ir.DataType.FLOAT and tensor.size >= HALVED_FROM:
                self._sources[name] = tensor
                value.const_value = onnx_ir.ExternalTensor("", None, None, tensor.dtype, shape=tensor.shape, name=name)

    def __contains__(self, name: str) -> bool:
        return name in self._sources

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        """The values of one weight, computed on access."""
        values = np.ascontiguousarray(self._sources[name].numpy())
        return values.astype(np.float16) if name in self._halves else values

    def rename(self, names: dict[str, str]) -> None:
        """Rename the weights: name → new name."""
        self._sources = {names[name]: source for name, source in self._sources.items()}

    def halve(self, model: Any) -> None:
        """Store float32 weights as float16 followed by a Cast, where this is exact.

        Constants that the exporter computed (rotary tables, folded products) do not survive the rounding and stay as they are.
        """
        casts = []
        for tensor in model.graph.initializer:
            if (name := tensor.name) not in self or not _survives(self[name]):
                continue
            tensor.CopyFrom(onnx.TensorProto(name=f"{name}.half", data_type=onnx.TensorProto.FLOAT16, dims=tensor.dims))
            self._sources[tensor.name] = self._sources.pop(name)
            self._halves.add(tensor.name)
            casts.append(onnx.helper.make_node("Cast", [tensor.name], [name], name=f"{name}.cast", to=onnx.TensorProto.FLOAT))
        nodes = list(model.graph.node)
        del model.graph.node[:]
        model.graph.node.extend([*casts, *nodes])

    def put(self, model: Any, folder: Path) -> Path | None:
        """Write the weights into the graph or, if they are large, into a file in `folder`, which is returned."""
        places = [tensor for tensor in model.graph.initializer if tensor.name in self]
        for tensor in places:
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
        if sum(map(_bytes, places)) >= EXTERNAL_FROM:
            return self._outside(places, folder)
        for tensor in places:
            tensor.raw_data = self[tensor.name].tobytes()
        return None

    def _outside(self, places: list[Any], folder: Path) -> Path:
        """Write the file, named by its hash. The graph refers to it by that name, so the graph's hash changes with the weights."""
        places = sorted(places, key=lambda tensor: tensor.data_type == onnx.TensorProto.FLOAT16)  # 32 bits first, so that all are aligned
        header, starts = _header(places)
        draft = folder / f"weights{DATA_SUFFIX}"
        digest = hashlib.sha256(header)
        with draft.open("wb") as file:
            file.write(header)
            for tensor in places:
                content = self[tensor.name].data
                digest.update(content)
                file.write(content)
        path = folder / f"{digest.hexdigest()}{DATA_SUFFIX}"
        os.replace(draft, path)
        for tensor, start in zip(places, starts, strict=True):
            tensor.data_location = onnx.TensorProto.EXTERNAL
            for key, value in {"location": path.name, "offset": start, "length": _bytes(tensor)}.items():
                tensor.external_data.add(key=key, value=str(value))
        return path


def _survives(values: npt.NDArray[Any]) -> bool:
    with np.errstate(over="ignore"):
        return np.array_equal(values.astype(np.float16).astype(np.float32), values)


def _bytes(tensor: Any) -> int:
    return math.prod(tensor.dims) * np.dtype(DTYPES[tensor.data_type][0]).itemsize


def _header(tensors: Iterable[Any]) -> tuple[bytes, list[int]]:
    """The header of a safetensors file of these tensors in order, and the offset of each in the file."""
    entries, starts, end = {}, [], 0
    for tensor in tensors:
        starts.append(end)
        end += _bytes(tensor)
        entries[tensor.name] = {"dtype": DTYPES[tensor.data_type][1], "shape": list(tensor.dims), "data_offsets": [starts[-1], end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text, [8 + len(text) + start for start in starts]
