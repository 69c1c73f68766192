"""Names of array types, shared by all modules."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Booleans = npt.NDArray[np.bool_]
Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


class Array(Protocol):
    """An array on some device: a NumPy array, a torch tensor or a `CudaArray`.

    The runtime asks no more of it than this: its shape, its length, a reshaped view, and views by integers and slices.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""

    @property
    def dtype(self) -> Any:
        """Type of an element, in the words of the array's own library."""

    def __len__(self) -> int:
        """Length of the first axis."""

    def __iter__(self) -> Iterator[Any]:
        """Views along the first axis."""

    def __getitem__(self, index: Any, /) -> Any:
        """A view, by integers and slices."""

    def reshape(self, shape: Any, /) -> Any:
        """A view of as many elements."""


A = TypeVar("A", bound=Array)
"""The array type of one device."""
