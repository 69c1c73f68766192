"""Loaded components, shared by content, within a memory budget: the only state that outlives a call."""

from __future__ import annotations

import threading
from collections import OrderedDict

from . import backends
from .bundle import Component
from .errors import DeviceError


class EnginePool:
    """Loads each distinct graph once; drops the longest unused when `budget_bytes` of graphs is exceeded.

    Two bundles that name a file of the same SHA-256 (twins share an autoencoder, most share a text encoder) get the
    same engine. `strict`: an engine that runs otherwise than was asked for is an error, else `fallbacks` tells of it.
    """

    def __init__(self, backend: str = "onnxruntime", *, threads: int = 1, budget_bytes: int | None = None, strict: bool = False) -> None:
        self.backend = backends.get(backend)
        self.strict = strict
        self.fallbacks: list[str] = []
        self.threads = threads
        self.budget_bytes = budget_bytes
        self._engines: OrderedDict[str, tuple[backends.Engine, int]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, component: Component) -> backends.Engine:
        """The engine of `component`, loaded and verified if it is not there."""
        key = component.file.sha256
        with self._lock:
            if key in self._engines:
                self._engines.move_to_end(key)
                return self._engines[key][0]
            graph = component.file.read()
            self._evict(len(graph))
            engine = self.backend.load(graph, threads=self.threads)
            self._note(engine.fallback)
            self._engines[key] = engine, len(graph)
            return engine

    def loaded_bytes(self) -> int:
        """Size of the graphs that are loaded."""
        return sum(size for _, size in self._engines.values())

    def _note(self, fallback: str) -> None:
        if fallback and self.strict:
            raise DeviceError(f"{fallback}; install or choose another backend, or allow it without --strict-backend")
        if fallback and fallback not in self.fallbacks:
            self.fallbacks.append(fallback)

    def _evict(self, wanted: int) -> None:
        while self.budget_bytes is not None and self._engines and self.loaded_bytes() + wanted > self.budget_bytes:
            self._engines.popitem(last=False)
