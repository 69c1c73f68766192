"""Restore the diffusers pipeline of a generator of the zoo, with its torch weights, from its bundle alone.

The position of each parameter in a graph, and how its axes were permuted, are found by value: a network of the same
architecture with random weights goes through the same exporter, and each of its parameters is searched among the weights
of the result. The trained values are then read from the same positions of the bundle's graph. Nothing is guessed: the two
graphs must be equal except for the traced values, each parameter must be traced, and text encoder and denoiser must have
the hashes in the manifest.
"""

from __future__ import annotations

import hashlib
import importlib
import itertools
import json
import math
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import numpy_helper
from transformers import CLIPTokenizer

from resynth_fast.bundle import Bundle
from resynth_fast.errors import BundleError, ConfigError
from resynth_fast.types import Floats

from .. import graphs
from ..canonical import Decoder, Guidance
from ..families import Generator
from ..graphs import Network
from ..weights import round_weights
from . import assemble, text
from .recipes import AUTOENCODERS, DENOISERS

ABSENT = ("vae.encoder.", "vae.quant_conv.")
"""Parameters that a bundle lacks, since generation does not need them. They are NaN in a restored pipeline, so that a use shows."""
SCALE = "scaling_factor"
TEMPLATE_SCALE = 0.734375  # a number that no graph of the zoo contains; exact in float32


@dataclass(frozen=True, slots=True)
class Position:
    """Position of a parameter in a graph: with its axes in the order `axes`, then reshaped, it is the weight called `name`."""

    name: str
    axes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Trace:
    """Positions of a network's parameters, and the hash of everything else in its graph."""

    positions: dict[str, Position]
    rest: str


_traces: dict[str, Trace] = {}  # by the skeleton that all graphs of one architecture share; an export takes seconds


def restore(bundle: Bundle) -> Any:
    """The diffusers pipeline of `bundle`, a generator of the zoo, with the weights (rounded to float16) that it was exported with.

    The autoencoder's encoder, which no bundle contains, is NaN. ConfigError if there is no recipe of that name, BundleError
    if a parameter cannot be traced or a hash differs from the manifest.
    """
    pipeline = _untrained(bundle)
    for component, network in _canonical(pipeline, bundle).networks.items():
        _load(network, onnx.load_from_string(bundle.components[component].file.read()), f"{bundle.name}: component {component!r}")
        if isinstance(network.module, Decoder):
            pipeline.vae.register_to_config(scaling_factor=network.module.scale)
    lineage = _canonical(pipeline, bundle).lineage
    for part in ("text_encoder", "denoiser"):  # the autoencoder's hash includes its encoder
        if lineage[part] != bundle.lineage[part]:
            raise BundleError(
                f"{bundle.name}: the restored {part} is not the exported one, its weights hash to {lineage[part][:12]}…; "
                "export the bundle again"
            )
    return pipeline


def save(bundle: Bundle, to: Path) -> Path:
    """Restore `bundle` and write it in diffusers' format; returns the folder, `to / bundle.name`."""
    pipeline = restore(bundle)
    pipeline.save_pretrained(to / bundle.name, safe_serialization=True)
    return to / bundle.name


def _untrained(bundle: Bundle) -> Any:
    """The pipeline with the architecture of the recipe and random weights, rounded to 16 bits, by which parameters are told apart."""
    if bundle.name not in DENOISERS:
        raise ConfigError(f"no recipe for {bundle.name!r}; there are recipes for {', '.join(DENOISERS)}")
    recipe = DENOISERS[bundle.name]
    channels, height, _ = bundle.latents
    vae = AUTOENCODERS[recipe.autoencoder].build()
    vae.register_to_config(scaling_factor=TEMPLATE_SCALE, shift_factor=0.0)
    tokenizer = _tokenizer(bundle)
    encoder, denoiser = text.build(tokenizer), recipe.build(channels, height)
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in itertools.chain(vae.parameters(), encoder.parameters(), denoiser.parameters()):
            parameter.copy_(torch.randn(parameter.shape, generator=rng))
    round_weights(vae, encoder, denoiser)
    pipeline = assemble.pipeline(recipe, vae.eval(), tokenizer, encoder.eval(), denoiser.eval())
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _canonical(pipeline: Any, bundle: Bundle) -> Generator:
    family = importlib.import_module(f"resynth_fast.export.families.{bundle.family.replace('-', '_')}")
    generator: Generator = family.canonical(pipeline, Guidance(scale=bundle.guidance.scale))
    return generator


def _tokenizer(bundle: Bundle) -> CLIPTokenizer:
    """The tokenizer of the bundle; a newly trained one would number the words differently."""
    [entry] = bundle.tokenizers
    model = json.loads(entry.file.read())["model"]
    return CLIPTokenizer(vocab=model["vocab"], merges=[tuple(pair) for pair in model["merges"]], model_max_length=entry.max_tokens)


def _load(network: Network, graph: Any, what: str) -> None:
    """Load the weights of `graph` into the parameters of `network.module`, which are random before."""
    skeleton = _skeleton(graph)
    if skeleton not in _traces:
        with tempfile.TemporaryDirectory() as scratch:
            template = onnx.load_from_string(graphs.export(network, Path(scratch) / "template.onnx").graph)
        if _skeleton(template) != skeleton:
            raise BundleError(f"{what}: this exporter makes another graph of the recipe's architecture; export the bundle again")
        positions = _positions(_parameters(network.module), _weights(template), what)
        _traces[skeleton] = Trace(positions, _rest(template, positions))
    trace = _traces[skeleton]
    if _rest(graph, trace.positions) != trace.rest:
        raise BundleError(f"{what}: a constant differs from that of the recipe's architecture; export the bundle again")
    weights, parameters = _weights(graph), _parameters(network.module)
    values = {name: _restored(weights[position.name], position, parameters[name].shape) for name, position in trace.positions.items()}
    if isinstance(network.module, Decoder):
        network.module.scale = float(values.pop(SCALE))
    with torch.no_grad():
        for name, parameter in network.module.named_parameters():
            parameter.copy_(torch.full_like(parameter, math.nan) if name.startswith(ABSENT) else torch.from_numpy(values[name]))


def _parameters(module: torch.nn.Module) -> dict[str, Floats]:
    """The parameters that a bundle contains, and the scale that a decoder divides by."""
    parameters = {name: parameter.detach().numpy() for name, parameter in module.named_parameters() if not name.startswith(ABSENT)}
    return {**parameters, SCALE: np.array(module.scale, np.float32)} if isinstance(module, Decoder) else parameters


def _weights(graph: Any) -> dict[str, npt.NDArray[Any]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}


def _positions(parameters: Mapping[str, Floats], weights: Mapping[str, npt.NDArray[Any]], what: str) -> dict[str, Position]:
    """The position of each parameter; BundleError if it has none or several, or shares one."""
    same_numbers: dict[bytes, list[str]] = defaultdict(list)
    for name, weight in weights.items():
        if weight.dtype in (np.float16, np.float32):
            same_numbers[_content(weight)].append(name)
    positions = {}
    for name, parameter in parameters.items():
        matches = [position for weight in same_numbers[_content(parameter)] for position in _ways(parameter, weight, weights[weight])]
        if len(matches) != 1:
            raise BundleError(f"{what}: parameter {name!r} has {len(matches)} positions in the graph instead of one; it cannot be restored")
        positions[name] = matches[0]
    if len({position.name for position in positions.values()}) < len(positions):
        raise BundleError(f"{what}: two parameters cannot be told apart in the graph; export the bundle again")
    return positions


def _content(values: npt.NDArray[Any]) -> bytes:
    """Equal for arrays that contain the same numbers in any order."""
    return np.sort(values.astype(np.float32), axis=None).tobytes()


def _ways(parameter: Floats, name: str, weight: npt.NDArray[Any]) -> list[Position]:
    """The first order of axes that turns `parameter` into `weight`, if there is one; axes of size 1 allow several."""
    ways = (Position(name, axes) for axes in itertools.permutations(range(parameter.ndim)))
    return list(itertools.islice((p for p in ways if np.array_equal(parameter.transpose(p.axes).reshape(weight.shape), weight)), 1))


def _restored(weight: npt.NDArray[Any], position: Position, shape: tuple[int, ...]) -> Floats:
    """The parameter of `shape` from the `weight` at its position."""
    permuted = weight.reshape([shape[axis] for axis in position.axes]).transpose(np.argsort(position.axes))
    return np.array(permuted, np.float32).reshape(shape)


def _skeleton(graph: Any) -> str:
    """Hash of a graph without the values of its weights."""
    return _rest(graph, {tensor.name: Position(tensor.name, ()) for tensor in graph.graph.initializer})


def _rest(graph: Any, positions: Mapping[str, Position]) -> str:
    """Hash of a graph without the values of the traced weights; their names, shapes and types are part of it."""
    bare, traced = type(graph)(), {position.name for position in positions.values()}
    bare.CopyFrom(graph)
    for tensor in bare.graph.initializer:
        if tensor.name in traced:
            assert tensor.HasField("raw_data"), "the exporter writes only raw data"
            tensor.ClearField("raw_data")
    return hashlib.sha256(bare.SerializeToString(deterministic=True)).hexdigest()
