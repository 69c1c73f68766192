from collections.abc import Sequence
from typing import Protocol, overload

import numpy as np
from numpy.typing import NDArray

class Dlpack(Protocol):
    def __dlpack__(self, **asked: object) -> object: ...

def isa() -> str: ...
def supported_isas() -> list[str]: ...
def force_isa(name: str) -> None: ...
def similarity(
    probes: NDArray[np.float32],
    references: NDArray[np.float32],
    offsets: NDArray[np.int64],
    reduce: str,
    scores: NDArray[np.float32],
    best: NDArray[np.int64],
    margin: NDArray[np.float32],
) -> None: ...
def score(
    points: NDArray[np.float64],
    references: NDArray[np.float64],
    rows: NDArray[np.int64],
    offsets: NDArray[np.int64],
    content: NDArray[np.float64] | None,
    means: NDArray[np.float64] | None,
    weights: NDArray[np.float64],
    spreads: NDArray[np.float64],
    advantage: NDArray[np.float64],
    energy: float,
    scores: NDArray[np.float64],
    consistency: NDArray[np.float64],
) -> None: ...
def at_address(
    address: int, shape: Sequence[int], strides: Sequence[int], kind: str, bits: int, device: tuple[int, int], owner: object
) -> Dlpack: ...
def faults(values: NDArray[np.float32], found: NDArray[np.int32]) -> None: ...
def noise(seeds: NDArray[np.uint64], calls: NDArray[np.uint32], out: NDArray[np.float32]) -> None: ...
def step(
    weights: NDArray[np.float32],
    samples: Sequence[NDArray[np.float32]],
    outputs: Sequence[NDArray[np.float32]],
    unconditional: NDArray[np.float32] | None,
    noise: NDArray[np.float32] | None,
    out: NDArray[np.float32],
    guided: NDArray[np.float32] | None,
    scaled: NDArray[np.float32] | None,
) -> None: ...
def texture(pictures: NDArray[np.uint8], features: NDArray[np.float32]) -> None: ...
@overload
def resize(pixels: NDArray[np.uint8], filter: str, out: NDArray[np.uint8]) -> None: ...
@overload
def resize(pixels: NDArray[np.float32], filter: str, out: NDArray[np.float32]) -> None: ...
def fit(pixels: NDArray[np.uint8], filter: str, out: NDArray[np.float32]) -> None: ...
def levels(image: NDArray[np.float32], out: NDArray[np.uint8]) -> None: ...
def jpeg_round_trip(pixels: NDArray[np.uint8], quality: int, out: NDArray[np.uint8]) -> None: ...
def topk(
    queries: NDArray[np.float32],
    blocks: Sequence[NDArray[np.float32] | NDArray[np.float16]],
    offsets: NDArray[np.float32] | None,
    weights: NDArray[np.float32] | None,
    groups: NDArray[np.int32] | None,
    scores: NDArray[np.float32],
    indices: NDArray[np.int64],
) -> None: ...
