"""Export an ONNX image encoder as an extractor: outputs of its transformer blocks become taps, and the graph is cut after the last.

The residual stream is found by structure, not by names: it is the longest chain of additions in which each adds a computed
value to the result of the previous one. A block of a pre-norm transformer adds twice, attention and MLP.
"""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from resynth_fast import backends
from resynth_fast.backends.onnx_model import OnnxModel
from resynth_fast.bundle import NAME, Bundle
from resynth_fast.errors import BundleError, ConfigError
from resynth_fast.extractors.pixels import PixelRecipe

from . import encoders, extractor_fit, graphs
from .graphs import Network, clean, rename
from .pipelines import checkpoint_sha256

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
POOLS = ("cls", "mean")
TAP_TOLERANCE = 1e-4


@dataclass(frozen=True, kw_only=True)
class Encoder:
    """An image encoder as ONNX graphs in the terms of the bundle: `pixels` (b, 3, S, S) in [0, 1] → taps (b, d)."""

    network: bytes
    """cut after the last tap"""
    last: bytes | None
    """the whole encoder up to its embedding; None if it has none"""
    taps: tuple[str, ...]
    side: int
    blocks: int
    quantised: int
    """number of dynamically quantised products that remain: with them, features depend on the rest of the batch"""
    leading: int
    """number of tokens before the first patch: a class token, registers, or none"""
    pools: tuple[str, ...]


def read(
    path: Path,
    taps: Sequence[int],
    *,
    pools: Sequence[str] = (),
    side: int | None = None,
    mean: Sequence[float] = CLIP_MEAN,
    std: Sequence[float] = CLIP_STD,
    dequantise: bool = True,
) -> Encoder:
    """The encoder in `path` with taps after blocks `taps` (from 1). ConfigError says what the graph lacks.

    `pools`: cls, the class token of a tap, or mean, the mean of its patches; by default cls, or mean where there is no class token.
    """
    if unknown := set(pools) - set(POOLS):
        raise ConfigError(f"pool is {sorted(unknown)[0]!r}; it must be one of {', '.join(POOLS)}")
    model = _load(path)
    pixels, side = _input(model, side)
    if dequantise:
        _dequantise(model)
    stream = residual_stream(model, pixels)
    if not stream:
        raise ConfigError(
            f"{path.name} has no residual stream of a pre-norm transformer; export the encoder to ONNX without fused layers and try again"
        )
    blocks = len(stream) // 2
    if outside := [tap for tap in taps if not 1 <= tap <= blocks]:
        raise ConfigError(f"tap {outside[0]} is not a block of {path.name}; it has 1 … {blocks}")
    leading = _leading_tokens(model, pixels, stream[-1], side)
    if "cls" in pools and not leading:
        raise ConfigError(f"{path.name} has no class token: its first token is the top-left patch of the picture; use --pool mean")
    pools = tuple(pools) or ("cls" if leading else "mean",)
    embedding = _embedding(model)
    _normalise(model, pixels, mean, std)
    names = tuple(f"tap_{tap}" + ("" if pool == "cls" else "_mean") for tap in taps for pool in pools)
    cut = onnx.ModelProto()
    cut.CopyFrom(model)
    outputs = zip(names, [stream[2 * tap - 1] for tap in taps for _ in pools], pools * len(taps), strict=True)
    network = _keep(cut, [_pool(cut, tokens, pool, name, leading) for name, tokens, pool in outputs], side)
    last = None
    if embedding is not None:
        name, rank = embedding
        whole = onnx.ModelProto()
        whole.CopyFrom(model)
        output = _pool(whole, name, pools[0], "tap_last", leading) if rank == 3 else _alias(whole, name, "tap_last")
        last = _keep(whole, [output], side)
    quantised = sum(node.op_type == "DynamicQuantizeLinear" for node in cut.graph.node)
    return Encoder(network=network, last=last, taps=names, side=side, blocks=blocks, quantised=quantised, leading=leading, pools=pools)


def read_checkpoint(
    folder: Path,
    taps: Sequence[int],
    *,
    pools: Sequence[str] = (),
    side: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Encoder:
    """As `read`, for a folder written by transformers; BundleError if its taps differ from the outputs of the transformers blocks."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / f"{folder.name}.onnx"
        made = encoders.export(folder, path)
        mean, std = mean or made.pictures.mean, std or made.pictures.std
        encoder = read(path, taps, pools=pools, side=side, mean=mean, std=std)
    pixels = np.random.default_rng(0).random((2, 3, encoder.side, encoder.side)).astype(np.float32)
    normalised = (pixels - np.array(mean, np.float32).reshape(1, 3, 1, 1)) / np.array(std, np.float32).reshape(1, 3, 1, 1)
    states = made.states(torch.from_numpy(normalised))
    found = backends.get("onnxruntime").load(OnnxModel(encoder.network), threads=1).run({"pixels": pixels})
    expected = [
        (states[tap - 1][:, 0] if pool == "cls" else states[tap - 1][:, encoder.leading :].mean(1)).numpy()
        for tap in taps
        for pool in encoder.pools
    ]
    for tap, wanted in zip(encoder.taps, expected, strict=True):
        error = float(np.abs(found[tap] - wanted).max() / np.abs(wanted).max())
        if not error <= TAP_TOLERANCE:
            raise BundleError(
                f"{folder.name}: {tap} differs from transformers by {error:.1e}; "
                f"at most {TAP_TOLERANCE:.0e} is allowed, so nothing was written"
            )
    return encoder


def residual_stream(model: Any, pixels: str) -> list[str]:
    """Outputs of the additions along the residual stream, in order; empty if there is no such stream."""
    computed = {pixels}
    length: dict[str, int] = {}
    before: dict[str, str] = {}
    for node in model.graph.node:
        # A value that depends only on the size of the batch (an interpolated position embedding) is not part of the stream.
        if node.op_type not in ("Shape", "Size") and any(name in computed for name in node.input):
            computed.update(node.output)
        if node.op_type == "Add" and all(name in computed for name in node.input):
            previous = max((name for name in node.input if name in length), key=lambda name: length[name], default=None)
            length[node.output[0]] = 1 + (length[previous] if previous else 0)
            if previous:
                before[node.output[0]] = previous
    if not length:
        return []
    end = max(length, key=lambda name: length[name])
    chain = [end]
    while chain[-1] in before:
        chain.append(before[chain[-1]])
    return chain[::-1] if len(chain) >= 4 and len(chain) % 2 == 0 else []


def _load(path: Path) -> Any:
    try:
        model = onnx.load(path)
        onnx.checker.check_model(model)
    except Exception as error:  # onnx, protobuf and the file system raise different exceptions
        raise ConfigError(f"{path} cannot be read as an ONNX graph ({error}); export the encoder again") from error
    if model.functions or any(attribute.HasField("g") for node in model.graph.node for attribute in node.attribute):
        raise ConfigError(f"{path.name} has functions or branches; export it as one flat graph")
    return model


def _input(model: Any, side: int | None) -> tuple[str, int]:
    """Name and side of the picture input."""
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    pictures = [value for value in inputs if len(value.type.tensor_type.shape.dim) == 4]
    if len(inputs) != 1 or len(pictures) != 1:
        raise ConfigError(f"the encoder must have one input (b, 3, S, S); this one has {', '.join(value.name for value in inputs)}")
    _, _, height, width = (dim.dim_value for dim in pictures[0].type.tensor_type.shape.dim)
    if (kind := pictures[0].type.tensor_type.elem_type) != TensorProto.FLOAT:
        raise ConfigError(f"the encoder takes {TensorProto.DataType.Name(kind)} pictures; export it again in float32")
    if height != width:
        raise ConfigError(f"the encoder takes pictures of {height}×{width}; they must be square")
    if not (height or side):
        raise ConfigError("the encoder takes pictures of any size; choose one with --size, for example 224")
    if side and height and side != height:
        raise ConfigError(f"--size is {side}, but the encoder takes {height}; leave --size out")
    return pictures[0].name, height or int(side or 0)


def _dequantise(model: Any) -> None:
    """Replace dynamically quantised matrix products by exact ones. The weights stay as they are, in 8 bits.

    DynamicQuantizeLinear → MatMulInteger → Cast → Mul(scales) becomes Cast → Sub → Mul → MatMul on the weights' side.
    """
    graph = model.graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    producer = {name: node for node in graph.node for name in node.output}
    users: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, []).append(node)
    replaced: dict[str, list[Any]] = {}
    for node in list(graph.node):
        if node.op_type != "MatMulInteger":
            continue
        quantiser = producer.get(node.input[0])
        [cast] = users[node.output[0]]
        [scaling] = users[cast.output[0]]
        scales = producer.get(next(name for name in scaling.input if name != cast.output[0]))
        if quantiser is None or quantiser.op_type != "DynamicQuantizeLinear" or node.input[1] not in weights or scales is None:
            raise ConfigError(f"{node.name or node.output[0]} has a quantisation that cannot be undone; keep it with --keep-quantised")
        scale = next(name for name in scales.input if name != quantiser.output[1])
        weight = node.input[1]
        made = [helper.make_node("Cast", [weight], [f"{weight}.float"], to=TensorProto.FLOAT)]
        current = f"{weight}.float"
        if len(node.input) > 3 and numpy_helper.to_array(weights[node.input[3]]).any():
            made.append(helper.make_node("Cast", [node.input[3]], [f"{weight}.zero"], to=TensorProto.FLOAT))
            made.append(helper.make_node("Sub", [current, f"{weight}.zero"], [f"{weight}.centred"]))
            current = f"{weight}.centred"
        made.append(helper.make_node("Mul", [current, scale], [f"{weight}.exact"]))
        if any(n.output[0] == f"{weight}.exact" for nodes in replaced.values() for n in nodes):
            made = []  # one weight, used twice
        made.append(helper.make_node("MatMul", [quantiser.input[0], f"{weight}.exact"], [scaling.output[0]]))
        replaced[scaling.output[0]] = made
    nodes = []
    for node in graph.node:
        nodes += replaced.get(node.output[0], [node])
    del graph.node[:]
    graph.node.extend(nodes)


def _normalise(model: Any, pixels: str, mean: Sequence[float], std: Sequence[float]) -> None:
    """Put the encoder's normalisation into the graph: it then takes `pixels` in [0, 1]."""
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise ConfigError(f"mean and std are {tuple(mean)} and {tuple(std)}; each must be three numbers, std above 0")
    graph = model.graph
    inner = f"{pixels}.normalised"
    for node in graph.node:
        node.input[:] = [inner if name == pixels else name for name in node.input]
    for name, values in (("pixels.mean", mean), ("pixels.std", std)):
        graph.initializer.append(numpy_helper.from_array(np.array(values, np.float32).reshape(1, 3, 1, 1), name))
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend(
        [
            helper.make_node("Sub", ["pixels", "pixels.mean"], ["pixels.centred"]),
            helper.make_node("Div", ["pixels.centred", "pixels.std"], [inner]),
            *nodes,
        ]
    )


def _embedding(model: Any) -> tuple[str, int] | None:
    """The encoder's output, a vector if it has one, else its tokens; and its number of dimensions."""
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in model.graph.output}
    return next(((name, rank) for rank in (2, 3) for name, r in ranks.items() if r == rank), None)


def _leading_tokens(model: Any, pixels: str, tokens: str, side: int) -> int:
    """Number of tokens before the first patch, from the stride of the patches; without a strided convolution patches form a square."""
    import onnxruntime

    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    probe.graph.output.append(helper.make_tensor_value_info(tokens, TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    [found] = session.run([tokens], {pixels: np.zeros((1, 3, side, side), np.float32)})
    strides = [a.ints[0] for node in model.graph.node if node.op_type == "Conv" for a in node.attribute if a.name == "strides"]
    patches = (side // strides[0]) ** 2 if strides and strides[0] > 1 else math.isqrt(found.shape[1]) ** 2
    return max(0, int(found.shape[1]) - patches)


def _pool(model: Any, tokens: str, pool: str, name: str, leading: int) -> str:
    """(b, t, d) → (b, d): the first token, or the mean of those after the first `leading`."""
    graph = model.graph
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if pool == "cls":
        graph.initializer.append(numpy_helper.from_array(np.array(0, np.int64), f"{name}.first"))
        graph.node.append(helper.make_node("Gather", [tokens, f"{name}.first"], [name], axis=1))
        return name
    for suffix, value in (("from", leading), ("to", np.iinfo(np.int64).max), ("axis", 1)):
        graph.initializer.append(numpy_helper.from_array(np.array([value], np.int64), f"{name}.{suffix}"))
    graph.node.append(helper.make_node("Slice", [tokens, f"{name}.from", f"{name}.to", f"{name}.axis"], [f"{name}.rest"]))
    if opset >= 18:
        graph.node.append(helper.make_node("ReduceMean", [f"{name}.rest", f"{name}.axis"], [name], keepdims=0))
    else:
        graph.node.append(helper.make_node("ReduceMean", [f"{name}.rest"], [name], axes=[1], keepdims=0))
    return name


def _alias(model: Any, value: str, name: str) -> str:
    model.graph.node.append(helper.make_node("Identity", [value], [name]))
    return name


def _keep(model: Any, outputs: Sequence[str], side: int) -> bytes:
    """The part of the graph that `outputs` depend on, cleaned and renamed like every exported graph."""
    graph = model.graph
    needed, nodes = set(outputs), []
    for node in reversed(graph.node):
        if needed & set(node.output):
            nodes.append(node)
            needed.update(node.input)
    del graph.node[:]
    graph.node.extend(reversed(nodes))
    kept = [tensor for tensor in graph.initializer if tensor.name in needed]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    del graph.input[:]
    graph.input.append(helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", 3, side, side]))
    del graph.output[:]
    del graph.value_info[:]
    widths = _widths(model, outputs, side)
    graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", width]) for name, width in widths.items())
    clean(model)
    rename(model)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def _widths(model: Any, outputs: Sequence[str], side: int) -> dict[str, int]:
    """Features of each output, by running the graph once: shape inference does not see through every reshape."""
    import onnxruntime

    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    probe.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs)
    session = onnxruntime.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(list(outputs), {"pixels": np.zeros((1, 3, side, side), np.float32)})
    if wrong := [name for name, value in zip(outputs, found, strict=True) if value.ndim != 2 or value.shape[0] != 1]:
        raise ConfigError(f"{wrong[0]} is not one vector a picture; choose another pool or another encoder")
    return {name: int(value.shape[1]) for name, value in zip(outputs, found, strict=True)}


def export(
    path: Path,
    to: Path,
    *,
    name: str,
    licence: str,
    taps: Sequence[int],
    pools: Sequence[str] = (),
    side: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    dequantise: bool = True,
    last: bool = True,
    pixels: PixelRecipe = PixelRecipe(working_size=256),  # noqa: B008 (frozen)
    constants_from: Path | None = None,
    threads: int = 1,
) -> Bundle:
    """The encoder in `path` as the extractor bundle `to / name`, its constants fitted on the pictures of `constants_from`.

    The default is pictures of the embedded zoo. `path` is an ONNX file, or a folder written by transformers, whose taps are
    compared with transformers. mean and std are by default the folder's; for a file they are CLIP's. ConfigError or
    BundleError say what is wrong; nothing is written then.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(f"name {name[:40]!r} must be letters, digits, '.', '_' or '-', at most 100; choose another with --name")
    if path.is_dir():
        encoder, sha256 = read_checkpoint(path, taps, pools=pools, side=side, mean=mean, std=std), checkpoint_sha256(path)
    else:
        encoder = read(path, taps, pools=pools, side=side, mean=mean or CLIP_MEAN, std=std or CLIP_STD, dequantise=dequantise)
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    networks: dict[str, Network | bytes] = {"network": encoder.network}
    if last and encoder.last:
        networks["last"] = encoder.last
    fields: dict[str, Any] = {
        "kind": "extractor",
        "name": name,
        "family": "image-encoder",
        "licence": licence,
        "taps": list(encoder.taps),
        "source": {"checkpoint": path.resolve().name, "sha256": sha256},
        "pixels": {"working_size": pixels.working_size, "border": pixels.border, "jpeg_quality": pixels.jpeg_quality},
    }
    if encoder.quantised:
        fields["max_batch"] = 1  # the scale of a dynamic quantisation depends on the whole batch
    columns = sum(graphs.describe(encoder.network)[1][tap]["shape"][1] for tap in encoder.taps)
    description = f"{path.resolve().name}: taps {', '.join(encoder.taps)} of {encoder.blocks} blocks at {encoder.side} px"
    return extractor_fit.write(to, fields, networks, columns, pictures=constants_from, threads=threads, description=description)
