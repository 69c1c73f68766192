"""Parity: every exported component against torch, and the runtime's whole pictures against diffusers' pipeline.

A bundle that fails is never published. NaN is a failure.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from resynth_fast import backends
from resynth_fast.bundle import Bundle
from resynth_fast.candidates.engine import EngineCandidate
from resynth_fast.engines.pool import EnginePool
from resynth_fast.errors import BundleError
from resynth_fast.kernels.noise import normal_rows

from .families import Generator
from .graphs import Network
from .replay import drawing
from .weights import widened

COMPONENT_TOLERANCE = 1e-4  # of the largest value
PICTURE_TOLERANCE = 2 / 255
BATCHES = (1, 3)


@dataclass
class Parity:
    """Measurements of an export."""

    components: dict[str, float] = field(default_factory=dict)
    """largest error of each, relative to its largest output"""
    pictures: dict[int, float] = field(default_factory=dict)
    """number of steps → largest difference from diffusers' pictures, on a scale of 1"""
    seconds: dict[str, float] = field(default_factory=dict)
    """seconds that exporting each component took"""


def components(bundle: Bundle, networks: Mapping[str, Network]) -> dict[str, float]:
    """Largest error of each component, relative to its largest output, at two batch sizes; BundleError above the tolerance."""
    backend = backends.get("onnxruntime")
    errors: dict[str, float] = {}
    for name, network in networks.items():
        examples = [network.example(batch) for batch in BATCHES]
        with widened(network.module), torch.no_grad():
            wanted = [network.module.eval()(**inputs) for inputs in examples]
        engine = backend.load(bundle.components[name].onnx_model(), threads=torch.get_num_threads())
        errors[name] = 0.0
        for inputs, expected in zip(examples, wanted, strict=True):
            found = engine.run({key: value.numpy() for key, value in inputs.items()})
            for key, value in zip(network.outputs, [expected] if isinstance(expected, torch.Tensor) else expected, strict=True):
                error = np.abs(found[key] - value.numpy()).max() / max(float(value.abs().max()), 1e-9)
                errors[name] = max(errors[name], float(error) if np.isfinite(error) else np.inf)
        del engine  # before torch's weights are widened again
        _require(
            errors[name],
            COMPONENT_TOLERANCE,
            f"{bundle.name}: component {name!r} differs from torch by {errors[name]:.1e} of its largest output",
        )
    return errors


def pictures(bundle: Bundle, generator: Generator, prompts: Sequence[str], steps: int) -> float:
    """Largest difference (of 1) between the runtime's pictures and diffusers', from the same noise; BundleError above the tolerance."""
    seeds = range(len(prompts))
    made = np.stack(EngineCandidate(bundle, EnginePool(threads=torch.get_num_threads())).make(prompts, list(seeds), steps))
    calls = itertools.count(1)

    def noise(call: int) -> np.ndarray:
        return normal_rows(seeds, [call] * len(seeds), bundle.latents)

    with drawing(generator.scheduler, lambda _: torch.from_numpy(noise(next(calls)))):
        expected = generator.reference(prompts, noise(0), steps)
    error = float(np.abs(made / 255.0 - expected).max())
    error = error if np.isfinite(error) else np.inf
    _require(error, PICTURE_TOLERANCE, f"{bundle.name}: pictures at {steps} steps differ from diffusers' by {error * 255:.1f}/255")
    return error


def _require(error: float, tolerance: float, message: str) -> None:
    if not error <= tolerance:
        raise BundleError(f"{message}; at most {tolerance:.1e} is allowed, so nothing was written")
