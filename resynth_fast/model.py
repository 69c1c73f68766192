"""A network as backends take it: an ONNX graph, and the safetensors files its large weights stand in.

In the graph such a weight is external data: a location, an offset and a length. The location is the file's SHA-256, so
that the hash of a graph changes with any of its weights, and is the hash of the whole network.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from .errors import BundleError

MAX_HEADER_BYTES = 16 << 20
DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I8": "|i1", "U8": "|u1", "BOOL": "|b1"}


@dataclass(frozen=True, slots=True)
class Model:
    """A graph whose hash was checked, and its data: location in the graph → file, checked as well."""

    graph: bytes
    data: Mapping[str, Path] = field(default_factory=dict)
    path: Path | None = None
    """Where the graph stands, its data beside it: for libraries that must read external data themselves."""

    def __post_init__(self) -> None:
        """BundleError if the graph names a file that `data` does not: a library would look for it in the working directory."""
        known = sum(self.graph.count(b"\n\x08location\x12" + bytes([len(name)]) + name.encode()) for name in self.data)
        if self.graph.count(b"location") != known:  # the key of such an entry, however it was written
            raise BundleError(
                f"the graph {self.path or ''} takes weights from a file that its manifest does not list as data; export the bundle again"
            )

    def tensors(self) -> dict[str, npt.NDArray[np.generic]]:
        """The weights outside the graph by their names there, mapped from their files, not read; BundleError if a file is broken."""
        found: dict[str, npt.NDArray[np.generic]] = {}
        for path in self.data.values():
            found |= _mapped(path)
        return found


def _mapped(path: Path) -> dict[str, npt.NDArray[np.generic]]:
    """The tensors of a safetensors file; the library's own reader of NumPy arrays copies them."""
    try:
        content = np.memmap(path, np.uint8, "r")
        start = 8 + int(content[:8].view("<u8")[0])
        if start > min(len(content), MAX_HEADER_BYTES):
            raise ValueError(f"its header says {start - 8} bytes, the file has {len(content)}")
        header = json.loads(content[8:start].tobytes())
        header.pop("__metadata__", None)
        return {
            name: np.ndarray(
                tuple(entry["shape"]), DTYPES[entry["dtype"]], content[slice(*(start + int(i) for i in entry["data_offsets"]))]
            )
            for name, entry in header.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise BundleError(f"{path} is no safetensors file that can be read ({error}); export the bundle again") from error
