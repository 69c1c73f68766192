"""Backends: libraries that run a component; one file each, found by its name and imported when asked for."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..errors import ConfigError, DeviceError

Arrays = Mapping[str, npt.NDArray[Any]]


class Engine(Protocol):
    """A loaded component."""

    def run(self, inputs: Arrays) -> dict[str, npt.NDArray[np.float32]]:
        """Named inputs to named outputs; a row never depends on the others."""


class Backend(Protocol):
    """What each file of this folder offers as module functions."""

    def version(self) -> str:
        """Name and version, for provenance."""

    def load(self, graph: bytes, *, threads: int) -> Engine:
        """Make an engine of an ONNX graph."""


def names() -> list[str]:
    """The backends there is a file for."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def get(name: str) -> Backend:
    """The backend called `name`; ConfigError if there is none, DeviceError if its library is not installed."""
    if name not in names():
        raise ConfigError(f"backend is {name!r}; there are {', '.join(names())}")
    try:
        return importlib.import_module(f"{__name__}.{name}")
    except ImportError as error:
        raise DeviceError(f"backend {name!r} cannot be used ({error}); pip install 'resynth-fast[cpu]' or [gpu]") from error
