"""Plans: a component's graph built ahead of time for a GPU by TensorRT-RTX, or by TensorRT where that is installed.

No GPU is needed to build with TensorRT-RTX. A plan is found again by a key over everything that it was made from, and
is trusted only as far as the side-car beside it says the same; else it is built again. Built here, never run here.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx
from filelock import FileLock

from resynth_fast import files
from resynth_fast.backends.onnx_model import OnnxModel
from resynth_fast.bundle import Component
from resynth_fast.errors import BundleError, ConfigError, DeviceError

FLAVOURS = {"tensorrt-rtx": "tensorrt_rtx", "tensorrt": "tensorrt"}
BATCHES = (1, 8, 32)
"""minimum, typical and maximum rows of a call"""

Shapes = Mapping[str, tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]]


@dataclass(frozen=True, kw_only=True)
class Key:
    """Everything that a plan depends on: plans with different keys are different plans."""

    graph: str
    """SHA-256 of nodes, inputs and outputs"""
    weights: str
    """SHA-256 of the weights"""
    shapes: Mapping[str, Any]
    """minimum, typical and maximum shape of each input"""
    precision: str
    flavour: str
    version: str
    compute_capability: str
    flags: tuple[str, ...] = ()

    def digest(self) -> str:
        """SHA-256 over all fields."""
        return hashlib.sha256(json.dumps(self.fields(), sort_keys=True).encode()).hexdigest()

    def fields(self) -> dict[str, Any]:
        """The fields in the form of the side-car file."""
        fields: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return fields


def key_of(component: Component, *, compute_capability: str, flavour: str = "tensorrt-rtx", flags: tuple[str, ...] = ()) -> Key:
    """The key of the plan of `component` for a GPU of `compute_capability`, for example "8.9"."""
    graph, weights = _hashes(component.file.read())
    return Key(
        graph=graph,
        weights=weights,
        shapes=shapes(component),
        precision=component.precision,
        flavour=flavour,
        version=_library(flavour).__version__,
        compute_capability=compute_capability,
        flags=flags,
    )


def shapes(component: Component) -> Shapes:
    """Minimum, typical and maximum shape of each input; only the batch is dynamic."""
    return {
        name: tuple(tuple(batch if isinstance(size, str) else size for size in tensor.shape) for batch in BATCHES)  # type: ignore[misc]
        for name, tensor in component.inputs.items()
    }


def plan(store: Path, component: Component, key: Key) -> Path:
    """The plan of `component` in the folder `store`: an existing one if it is intact and has the same key, else a new one."""
    path = store / f"{key.digest()}.plan"
    with files.write_errors(store):
        store.mkdir(parents=True, exist_ok=True)
    with FileLock(store / f"{key.digest()}.lock"):
        if not valid(path, key):
            content = build(component.onnx_model(), key)
            side_car = {
                "key": key.fields(),
                "component_sha256": component.file.sha256,
                "plan_sha256": hashlib.sha256(content).hexdigest(),
                "plan_bytes": len(content),
            }
            with files.write_errors(path):
                files.write(path, content)
                files.write(path.with_suffix(".json"), (json.dumps(side_car, indent=1) + "\n").encode())
    return path


def valid(path: Path, key: Key) -> bool:
    """Whether the plan at `path` has this `key` and is intact."""
    try:
        side_car = json.loads(path.with_suffix(".json").read_text())
        return bool(side_car["key"] == key.fields() and side_car["plan_sha256"] == hashlib.sha256(path.read_bytes()).hexdigest())
    except (OSError, ValueError, KeyError, TypeError):
        return False


def build(model: OnnxModel, key: Key) -> bytes:
    """The plan of an ONNX graph; BundleError if the library refuses the graph, ConfigError for a GPU that it cannot build for."""
    trt = _library(key.flavour)
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    if not (parser.parse_from_file(str(model.path)) if model.data else parser.parse(model.graph)):
        raise BundleError(f"{key.flavour} {key.version} cannot parse the graph ({parser.get_error(0)}); use another backend")
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    for name, (least, usual, most) in key.shapes.items():
        profile.set_shape(name, least, usual, most)
    config.add_optimization_profile(profile)
    for flag in key.flags:
        config.set_flag(getattr(trt.BuilderFlag, flag))
    if key.flavour == "tensorrt-rtx":
        config.num_compute_capabilities = 1
        config.set_compute_capability(_capability(trt, key.compute_capability), 0)
    content = builder.build_serialized_network(network, config)
    if content is None:
        raise BundleError(
            f"{key.flavour} {key.version} cannot build the graph for compute capability {key.compute_capability}; use another backend"
        )
    return bytes(content)


def _capability(trt: Any, text: str) -> Any:
    """`ComputeCapability` of, for example, "8.9"."""
    known = {name[2:-1] + "." + name[-1]: name for name in dir(trt.ComputeCapability) if name.startswith("SM") and name[2:].isdigit()}
    if text not in known:
        raise ConfigError(f"compute capability is {text!r}; the installed TensorRT-RTX builds for {', '.join(sorted(known, key=float))}")
    return getattr(trt.ComputeCapability, known[text])


def _library(flavour: str) -> Any:
    if flavour not in FLAVOURS:
        raise ConfigError(f"flavour is {flavour!r}; it must be {' or '.join(FLAVOURS)}")
    try:
        return importlib.import_module(FLAVOURS[flavour])
    except ImportError as error:
        raise DeviceError(
            f"{flavour} cannot be used ({error}); pip install 'resynth-fast[{'gpu' if 'rtx' in flavour else flavour}]'"
        ) from error


def _hashes(graph: bytes) -> tuple[str, str]:
    """SHA-256 of an ONNX graph without its weights, and of the weights."""
    model = onnx.load_from_string(graph)
    weights = hashlib.sha256()
    for tensor in model.graph.initializer:
        weights.update(tensor.SerializeToString(deterministic=True))
    del model.graph.initializer[:]
    return hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest(), weights.hexdigest()
