"""Give a generator of the zoo its torch weights back: from the bundle alone to the diffusers pipeline it was exported from.

Which parameter stands where in a graph, and how it was turned on the way, is found by value: a network of the same
architecture with random weights goes through the same exporter, and each of its parameters is looked for among the
weights of the result. The trained values are then read from the same places of the bundle's graph. Nothing is guessed:
the two graphs must be equal but for the traced values, each parameter must be traced, and text encoder and denoiser
must hash to what the manifest says of them.
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

from resynth_fast.arrays import Floats
from resynth_fast.bundle import Bundle
from resynth_fast.errors import BundleError, ConfigError

from .. import graphs
from ..canonical import Decoder, Guidance
from ..families import Generator
from ..graphs import Network
from ..weights import round_weights
from . import assemble, text
from .recipes import AUTOENCODERS, DENOISERS

ABSENT = ("vae.encoder.", "vae.quant_conv.")
"""What a bundle does not hold, for no picture is made with it: NaN in a restored pipeline, so that a use shows."""
SCALE = "scaling_factor"
TEMPLATE_SCALE = 0.734375  # any number that no graph of the zoo holds; exact in float32


@dataclass(frozen=True, slots=True)
class Place:
    """Where a parameter stands in a graph: its axes in the order `axes`, reshaped, are the weight called `name`."""

    name: str
    axes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Trace:
    """Places of a network's parameters, and the hash of everything in its graph that is no parameter."""

    places: dict[str, Place]
    rest: str


_traces: dict[str, Trace] = {}  # by what two graphs of one architecture have in common; an export takes seconds


def restore(bundle: Bundle) -> Any:
    """The diffusers pipeline of `bundle`, a generator of the zoo, with the weights (rounded to float16) that it was exported with.

    The autoencoder's encoder, which no bundle holds, is NaN. ConfigError if there is no recipe of that name, BundleError
    if a parameter cannot be traced or the result is not what the manifest says.
    """
    pipeline = _untrained(bundle)
    for component, network in _canonical(pipeline, bundle).networks.items():
        _load(network, onnx.load_from_string(bundle.components[component].file.read()), f"{bundle.name}: component {component!r}")
        if isinstance(network.module, Decoder):
            pipeline.vae.register_to_config(scaling_factor=network.module.scale)
    found = _canonical(pipeline, bundle).lineage
    for part in ("text_encoder", "denoiser"):  # the autoencoder's hash includes its encoder
        if found[part] != bundle.lineage[part]:
            raise BundleError(
                f"{bundle.name}: the restored {part} is not the exported one, its weights hash to {found[part][:12]}…; export the bundle again"
            )
    return pipeline


def save(bundle: Bundle, to: Path) -> Path:
    """Restore `bundle` and write it as diffusers does; returns the folder, `to / bundle.name`."""
    pipeline = restore(bundle)
    pipeline.save_pretrained(to / bundle.name, safe_serialization=True)
    return to / bundle.name


def _untrained(bundle: Bundle) -> Any:
    """The pipeline with the architecture of the recipe and random weights, each as unlike the others as 16 bits allow."""
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
    """The tokenizer of the bundle; training it again numbers the words differently."""
    [entry] = bundle.tokenizers
    model = json.loads(entry.file.read())["model"]
    return CLIPTokenizer(vocab=model["vocab"], merges=[tuple(pair) for pair in model["merges"]], model_max_length=entry.max_tokens)


def _load(network: Network, graph: Any, what: str) -> None:
    """Put the weights of `graph` into the parameters of `network.module`, whose weights now are random."""
    skeleton = _skeleton(graph)
    if skeleton not in _traces:
        with tempfile.TemporaryDirectory() as scratch:
            template = onnx.load_from_string(graphs.export(network, Path(scratch) / "template.onnx").graph)
        if _skeleton(template) != skeleton:
            raise BundleError(f"{what}: this exporter makes another graph of the recipe's architecture; export the bundle again")
        places = _places(_parameters(network.module), _weights(template), what)
        _traces[skeleton] = Trace(places, _rest(template, places))
    trace = _traces[skeleton]
    if _rest(graph, trace.places) != trace.rest:
        raise BundleError(f"{what}: a constant differs from that of the recipe's architecture; export the bundle again")
    weights, parameters = _weights(graph), _parameters(network.module)
    values = {name: _turned(weights[place.name], place, parameters[name].shape) for name, place in trace.places.items()}
    if isinstance(network.module, Decoder):
        network.module.scale = float(values.pop(SCALE))
    with torch.no_grad():
        for name, parameter in network.module.named_parameters():
            parameter.copy_(torch.full_like(parameter, math.nan) if name.startswith(ABSENT) else torch.from_numpy(values[name]))


def _parameters(module: torch.nn.Module) -> dict[str, Floats]:
    """What is looked for: the parameters that a bundle holds, and the scale that a decoder divides by."""
    found = {name: parameter.detach().numpy() for name, parameter in module.named_parameters() if not name.startswith(ABSENT)}
    return {**found, SCALE: np.array(module.scale, np.float32)} if isinstance(module, Decoder) else found


def _weights(graph: Any) -> dict[str, npt.NDArray[Any]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}


def _places(parameters: Mapping[str, Floats], weights: Mapping[str, npt.NDArray[Any]], what: str) -> dict[str, Place]:
    """Each parameter's one place; BundleError if it has none, or several, or shares one."""
    alike: dict[bytes, list[str]] = defaultdict(list)
    for name, weight in weights.items():
        if weight.dtype in (np.float16, np.float32):
            alike[_content(weight)].append(name)
    places = {}
    for name, parameter in parameters.items():
        found = [place for weight in alike[_content(parameter)] for place in _ways(parameter, weight, weights[weight])]
        if len(found) != 1:
            raise BundleError(f"{what}: parameter {name!r} has {len(found)} places in the graph, not one; it cannot be restored")
        places[name] = found[0]
    if len({place.name for place in places.values()}) < len(places):
        raise BundleError(f"{what}: two parameters cannot be told apart in the graph; export the bundle again")
    return places


def _content(values: npt.NDArray[Any]) -> bytes:
    """The same for arrays that hold the same numbers in whatever order."""
    return np.sort(values.astype(np.float32), axis=None).tobytes()


def _ways(parameter: Floats, name: str, weight: npt.NDArray[Any]) -> list[Place]:
    """The orders of axes that turn `parameter` into `weight`; of several that do the same (an axis of 1), the first."""
    ways = (Place(name, axes) for axes in itertools.permutations(range(parameter.ndim)))
    return list(itertools.islice((p for p in ways if np.array_equal(parameter.transpose(p.axes).reshape(weight.shape), weight)), 1))


def _turned(weight: npt.NDArray[Any], place: Place, shape: tuple[int, ...]) -> Floats:
    """The parameter of `shape` whose place holds `weight`."""
    there = weight.reshape([shape[axis] for axis in place.axes]).transpose(np.argsort(place.axes))
    return np.array(there, np.float32).reshape(shape)


def _skeleton(graph: Any) -> str:
    """Hash of a graph without the values of its weights."""
    return _rest(graph, {tensor.name: Place(tensor.name, ()) for tensor in graph.graph.initializer})


def _rest(graph: Any, places: Mapping[str, Place]) -> str:
    """Hash of a graph without the values that have a place; their names, shapes and types are part of it."""
    bare, placed = type(graph)(), {place.name for place in places.values()}
    bare.CopyFrom(graph)
    for tensor in bare.graph.initializer:
        if tensor.name in placed:
            assert tensor.HasField("raw_data"), "the exporter writes no other"
            tensor.ClearField("raw_data")
    return hashlib.sha256(bare.SerializeToString(deterministic=True)).hexdigest()
