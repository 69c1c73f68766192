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
