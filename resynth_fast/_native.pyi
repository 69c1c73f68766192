import numpy as np
from numpy.typing import NDArray

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
