"""Arrays in CUDA memory, for kernels and engines; no library is needed, and there is no arithmetic."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import kernels

ALIGNMENT_BYTES = 256
"""Alignment that libraries require of an address. Rows within an array may be less aligned."""


Strides = tuple[int, ...]
"""In elements."""


class CudaArray:
    """An array on the device of `context`, a `CudaContext`.

    It is in C order, unless it is a view of part of each row. A view keeps the memory of the whole array alive.
    """

    __slots__ = ("address", "context", "dtype", "owner", "shape", "strides")

    def __init__(
        self, context: Any, address: int, shape: Sequence[int], dtype: npt.DTypeLike, owner: object, strides: Strides | None = None
    ) -> None:
        """`owner` keeps the memory at `address` (bytes) alive."""
        self.context, self.address, self.shape, self.dtype, self.owner = context, address, tuple(shape), np.dtype(dtype), owner
        self.strides = _in_order(self.shape) if strides is None else strides

    @classmethod
    def empty(cls, context: Any, shape: Sequence[int], dtype: npt.DTypeLike) -> CudaArray:
        """An uninitialised array."""
        block = _Block(context, prod(shape) * np.dtype(dtype).itemsize)
        return cls(context, block.address, shape, dtype, block)

    @classmethod
    def of(cls, context: Any, values: npt.NDArray[Any]) -> CudaArray:
        """A copy of a NumPy array."""
        array = cls.empty(context, values.shape, values.dtype)
        context.upload(array.address, values)
        return array

    @classmethod
    def concatenate(cls, parts: Sequence[CudaArray]) -> CudaArray:
        """Join arrays along their first axis, by copies on the device."""
        first = parts[0]
        array = cls.empty(first.context, (sum(map(len, parts)), *first.shape[1:]), first.dtype)
        address = array.address
        for part in parts:
            array.context.copy(address, part.address, part.nbytes)
            address += part.nbytes
        return array

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize

    def to_host(self) -> npt.NDArray[Any]:
        """A NumPy copy, made after all work on the stream."""
        self._check_order()
        found: npt.NDArray[Any] = self.context.download(self.address, self.shape, self.dtype)
        return found

    def aligned(self) -> CudaArray:
        """This array, or a copy of it, at an address with the alignment that libraries require."""
        self._check_order()
        return self if self.address % ALIGNMENT_BYTES == 0 else CudaArray.concatenate([self])

    def reshape(self, shape: Sequence[int]) -> CudaArray:
        """A view of as many values."""
        self._check_order()
        assert prod(shape) == prod(self.shape)
        return CudaArray(self.context, self.address, shape, self.dtype, self.owner)

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[CudaArray]:
        """Views along the first axis."""
        return (self[i] for i in range(len(self)))

    def __getitem__(self, at: int | slice | tuple[int | slice, ...]) -> CudaArray:
        """A view, by integers and by slices of step 1 along the first axes."""
        first = at if isinstance(at, tuple) else (at,)
        offset, shape, strides = 0, list(self.shape[len(first) :]), list(self.strides[len(first) :])
        for axis, index in reversed(list(enumerate(first))):
            within = range(self.shape[axis])[index]
            if isinstance(within, range):
                assert within.step == 1
                shape.insert(0, len(within))
                strides.insert(0, self.strides[axis])
            offset += (within.start if isinstance(within, range) else within) * self.strides[axis]
        return CudaArray(self.context, self.address + offset * self.dtype.itemsize, shape, self.dtype, self.owner, tuple(strides))

    def _check_order(self) -> None:
        """Copies need contiguous memory; only kernels take views of part of each row."""
        for length, stride, expected in zip(self.shape, self.strides, _in_order(self.shape), strict=True):
            assert length == 1 or stride == expected, f"rows of {self.shape} are not next to one another"

    def __dlpack_device__(self) -> tuple[int, int]:
        """See the DLPack protocol."""
        kind, number = self.context.dlpack
        return kind, number

    def __dlpack__(self, **asked: Any) -> Any:
        """See the DLPack protocol.

        A consumer that names a stream gets finished values. Our kernels name none and use the context's stream.
        """
        if asked.get("stream") is not None:
            self.context.synchronize()
        array = kernels.native.at_address(
            self.address, self.shape, self.strides, self.dtype.kind, 8 * self.dtype.itemsize, self.context.dlpack, self
        )
        return array.__dlpack__(**asked)


class _Block:
    """Device memory, freed when no array uses it any more."""

    __slots__ = ("address", "context")

    def __init__(self, context: Any, size_bytes: int) -> None:
        self.context, self.address = context, context.allocate(size_bytes)

    def __del__(self) -> None:
        if hasattr(self, "address"):  # missing if the allocation failed
            self.context.free(self.address)


@lru_cache
def _in_order(shape: tuple[int, ...]) -> Strides:
    return tuple(prod(shape[axis + 1 :]) for axis in range(len(shape)))
