from collections.abc import Sequence
from typing import Protocol

class DeviceArray(Protocol):
    """Anything that speaks DLPack: a torch, CuPy or JAX array on a CUDA device."""

    def __dlpack__(self) -> object: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...

def device_count() -> int: ...
def status() -> str: ...
def similarity(
    probes: DeviceArray,
    references: DeviceArray,
    offsets: DeviceArray,
    reduce: str,
    scores: DeviceArray,
    best: DeviceArray,
    margin: DeviceArray,
    stream: int = 0,
) -> None: ...
def score_workspace_bytes(probes: int, points: int, candidates: int, dimension: int) -> int: ...
def score(
    points: DeviceArray,
    references: DeviceArray,
    rows: DeviceArray,
    offsets: DeviceArray,
    content: DeviceArray | None,
    means: DeviceArray | None,
    weights: DeviceArray,
    spreads: DeviceArray,
    advantage: DeviceArray,
    energy: float,
    scores: DeviceArray,
    consistency: DeviceArray,
    workspace: DeviceArray,
    stream: int = 0,
) -> None: ...
def faults(values: DeviceArray, found: DeviceArray, stream: int = 0) -> None: ...
def noise(seeds: DeviceArray, calls: DeviceArray, out: DeviceArray, stream: int = 0) -> None: ...
def step(
    weights: DeviceArray,
    samples: Sequence[DeviceArray],
    outputs: Sequence[DeviceArray],
    unconditional: DeviceArray | None,
    noise: DeviceArray | None,
    out: DeviceArray,
    guided: DeviceArray | None,
    scaled: DeviceArray | None,
    stream: int = 0,
) -> None: ...
def texture_workspace_bytes(count: int, side: int) -> int: ...
def texture(pictures: DeviceArray, features: DeviceArray, workspace: DeviceArray, stream: int = 0) -> None: ...
def preprocess_workspace_bytes(source_height: int, source_width: int, height: int, width: int, filter: str) -> int: ...
def resize(pixels: DeviceArray, filter: str, out: DeviceArray, workspace: DeviceArray, stream: int = 0) -> None: ...
def fit(pixels: DeviceArray, filter: str, out: DeviceArray, workspace: DeviceArray, stream: int = 0) -> None: ...
def levels(image: DeviceArray, out: DeviceArray, stream: int = 0) -> None: ...
def jpeg_workspace_bytes(height: int, width: int) -> int: ...
def jpeg_round_trip(pixels: DeviceArray, quality: int, out: DeviceArray, workspace: DeviceArray, stream: int = 0) -> None: ...
def topk_workspace_bytes(queries: int, rows: int, groups: int, k: int) -> int: ...
def topk(
    queries: DeviceArray,
    blocks: Sequence[DeviceArray],
    offsets: DeviceArray | None,
    weights: DeviceArray | None,
    groups: DeviceArray | None,
    scores: DeviceArray,
    indices: DeviceArray,
    workspace: DeviceArray,
    stream: int = 0,
) -> None: ...
