"""An image encoder as extractor: an engine whose outputs are taps, named intermediate layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..bundle import Bundle, Component
from ..devices.base import CPU, Device, transfer
from ..engines.pool import EnginePool
from ..errors import BundleError
from ..types import Array, Bytes, Floats

NETWORK, LAST = "network", "last"
"""Components: the graph cut after its last tap, and the whole graph, which only the score of the paper needs."""


def matches(bundle: Bundle) -> bool:
    """Whether `bundle` is of family `image-encoder`."""
    return bundle.family == "image-encoder"


def open(bundle: Bundle, pool: EnginePool | None, working_size: int) -> NetworkExtractor:
    """The extractor of a bundle, for squares of `working_size` px."""
    return NetworkExtractor(bundle, pool or EnginePool(), working_size)


class NetworkExtractor:
    """The taps of one encoder side by side, in the order of the bundle's manifest."""

    def __init__(self, bundle: Bundle, pool: EnginePool, working_size: int) -> None:
        self._bundle, self._pool = bundle, pool
        self.working_size = working_size
        self._component = self._get(NETWORK)
        _, channels, height, width = self._component.inputs["pixels"].shape
        if channels != 3 or height != width or not isinstance(height, int):
            raise BundleError(f"{bundle.folder}: input pixels is {channels}×{height}×{width}; an extractor takes 3×S×S")
        self.side = height
        self.taps: tuple[str, ...] = tuple(bundle.get("taps", list))
        lacking = [tap for tap in self.taps if tap not in self._component.outputs]
        if lacking or not self.taps:
            raise BundleError(f"{bundle.folder}: the network has no output for tap {lacking}; export the extractor again")
        # Dynamic quantisation takes its scale from the whole batch: a picture's features would depend on its batch mates.
        self._rows = int(bundle.manifest.get("max_batch", 8))

    @property
    def block_sizes(self) -> Mapping[str, int]:
        return {tap: int(self._component.outputs[tap].shape[1]) for tap in self.taps}

    @property
    def dimension(self) -> int:
        return sum(self.block_sizes.values())

    @property
    def device(self) -> Device[Any]:
        return self._pool.get(self._component).device

    def extract(self, batch: Array, device: Device[Any] = CPU) -> Floats:
        """See `Extractor.extract`."""
        return self._run(self._component, batch, self.taps, device)

    @property
    def backend(self) -> str:
        """See `Extractor.backend`."""
        return self._pool.backend.version()

    @property
    def embeds(self) -> bool:
        """See `Extractor.embeds`."""
        return LAST in self._bundle.components

    def embed(self, batch: Bytes) -> Floats:
        """See `Extractor.embed`."""
        component = self._get(LAST)
        return self._run(component, batch, tuple(component.outputs), CPU)

    def _run(self, component: Component, batch: Array, taps: tuple[str, ...], device: Device[Any]) -> Floats:
        engine = self._pool.get(component)
        engine_device = engine.device
        batch, rows = transfer(batch, device, engine_device), []
        for start in range(0, len(batch), self._rows):
            outputs = engine.run({"pixels": engine_device.resize_to_unit(batch[start : start + self._rows], self.side)})
            rows.append(np.concatenate([engine_device.to_host(outputs[tap]) for tap in taps], axis=1))
        return np.concatenate(rows) if rows else np.zeros((0, self.dimension), np.float32)

    def _get(self, name: str) -> Component:
        if name not in self._bundle.components:
            raise BundleError(
                f"{self._bundle.folder}: no component {name!r}, it has {', '.join(self._bundle.components)}; export the extractor again"
            )
        return self._bundle.components[name]
