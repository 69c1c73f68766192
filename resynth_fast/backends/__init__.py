"""Backends: libraries that run a component. One module each, found by listing (see `plugins`) and imported when it is used.

A backend has the name of its module, and may have variants after a colon: `onnxruntime`, `onnxruntime:cuda`,
`openvino:bf16`. Its module has `backend(variant: str) -> Backend`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy.typing as npt

from .. import plugins
from ..devices.base import Device
from ..errors import ConfigError, DeviceError
from ..types import Floats
from .onnx_model import OnnxModel

Arrays = Mapping[str, npt.NDArray[Any]]
HELPERS = {"onnx_model", "telemetry"}
"""Modules of this folder that are not backends. They are named, since a backend can be imported only where its library is."""


class Engine(Protocol):
    """A loaded component. Several threads may run it at once."""

    @property
    def fallback(self) -> str:
        """What runs instead of the requested variant, and why; empty if the requested variant runs."""

    @property
    def device(self) -> Device[Any]:
        """The device whose arrays it takes and returns; NumPy arrays are always taken, and returned for NumPy arrays.

        Calls of several threads on another device than the CPU are batched (`resynth_fast.engines.batching`).
        """

    def run(self, inputs: Arrays) -> dict[str, Floats]:
        """Named inputs → named outputs: C-contiguous float32 arrays in new memory. A row of an output does not depend on the others."""


class Backend(Protocol):
    """A library that loads components."""

    @property
    def runs_on_caller_thread(self) -> bool:
        """Whether an engine loaded with one thread computes on the calling thread, so that concurrent calls use several cores."""

    def version(self) -> str:
        """Name, version and variant, for provenance."""

    def load(self, model: OnnxModel, *, threads: int) -> Engine:
        """Load an ONNX graph, given as the bytes that were hashed, and its weights. Raises BundleError or DeviceError."""


def names() -> list[str]:
    """The backends of this package and of installed plug-ins."""
    return list(_listing())


def get(name: str) -> Backend:
    """The backend `name` or `name:variant`. ConfigError if it is unknown, DeviceError if its library is not installed."""
    kind, _, variant = name.partition(":")
    listing = _listing()
    if kind not in listing:
        raise ConfigError(f"backend is {name!r}; it must be {', '.join(listing)}")
    try:
        module = listing[kind].load()
    except ImportError as error:
        # Each backend of this package has an extra of its own name.
        raise DeviceError(f"backend {kind!r} cannot be used ({error}); pip install '{listing[kind].package}[{kind}]'") from error
    found: Backend = module.backend(variant)
    return found


def _listing() -> dict[str, plugins.Plugin]:
    return {name: plugin for name, plugin in plugins.listing(__name__).items() if name not in HELPERS}
