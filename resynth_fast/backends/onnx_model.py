"""A network as backends load it: an ONNX graph and the safetensors files of its large weights.

In the graph such a weight is external data: a location, an offset and a length. The location is the SHA-256 of the file.
The hash of a graph therefore changes with any of its weights and identifies the whole network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import BundleError


@dataclass(frozen=True, slots=True)
class OnnxModel:
    """A graph whose hash was checked, and its data: location in the graph → file, its hash checked too."""

    graph: bytes
    data: Mapping[str, Path] = field(default_factory=dict)
    path: Path | None = None
    """The file of the graph, for libraries that read external data themselves, from beside it."""

    def __post_init__(self) -> None:
        """BundleError if the graph names a file that `data` lacks: a library would look for it in the working directory."""
        known = sum(self.graph.count(b"\n\x08location\x12" + bytes([len(name)]) + name.encode()) for name in self.data)
        if self.graph.count(b"location") != known:  # the key of such an entry, however it was written
            raise BundleError(
                f"the graph {self.path or ''} takes weights from a file that its manifest does not list as data; export the bundle again"
            )
