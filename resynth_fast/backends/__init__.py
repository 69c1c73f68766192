"""Backends: libraries that run a component; one file each, found by its name and imported when asked for.

A backend is named by its file, and where it can run in more than one way, by a variant behind a colon:
`onnxruntime`, `onnxruntime:cuda`, `openvino:bf16`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError, DeviceError
from ..onnx_model import OnnxModel

Arrays = Mapping[str, npt.NDArray[Any]]
INSTALL = {"onnxruntime": "cpu] or [gpu", "tensorrt": "gpu"}
"""Backend -> extra, where the two differ in name."""


class Engine(Protocol):
    """A loaded component. Several threads may run it at once.

    One that runs on a device may have a `device` (see `resynth_fast.devices.base`); calls of several threads are then merged (`resynth_fast.engines.batching`).
    """

    @property
    def fallback(self) -> str:
        """What runs in place of what was asked for, and why; empty where nothing does."""

    def run(self, inputs: Arrays) -> dict[str, npt.NDArray[np.float32]]:
        """Named inputs to named outputs, which nobody else writes to; a row never depends on the others."""


class Backend(Protocol):
    """What `backend(variant)` of each file of this folder gives."""

    @property
    def runs_on_caller_thread(self) -> bool:
        """Whether engines of one thread compute on the thread that calls, so that several calls at once use several cores."""

    def version(self) -> str:
        """Name, version and variant, for provenance."""

    def load(self, model: OnnxModel, *, threads: int) -> Engine:
        """Make an engine of an ONNX graph, which is given as bytes, and its data: what runs is what was hashed. Raises BundleError or DeviceError."""


def names() -> list[str]:
    """The backends there is a file for."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def get(name: str) -> Backend:
    """The backend called `name` or `name:variant`; ConfigError if there is none, DeviceError if its library is not installed."""
    kind, _, variant = name.partition(":")
    if kind not in names():
        raise ConfigError(f"backend is {name!r}; there are {', '.join(names())}")
    try:
        module = importlib.import_module(f"{__name__}.{kind}")
    except ImportError as error:
        raise DeviceError(f"backend {kind!r} cannot be used ({error}); pip install 'resynth-fast[{INSTALL.get(kind, kind)}]'") from error
    found: Backend = module.backend(variant)
    return found
