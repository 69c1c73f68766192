"""ONNX operators as torch functions, for the operators that the exporter emits (opset 20).

Inputs are positional; attributes have ONNX's names.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Sizes = Sequence[int]
_FAR = 1 << 40
ATTENTION = "MatMul-Softmax-MatMul"
"""Not an ONNX operator: it replaces these three."""
DTYPES = MappingProxyType(
    {1: torch.float32, 6: torch.int32, 7: torch.int64, 9: torch.bool, 10: torch.float16, 11: torch.float64, 16: torch.bfloat16}
)
"""ONNX's number of a type → torch's type."""


def attention(query: Tensor, transposed_key: Tensor, value: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(query · transposed_key + mask) · value, which the graph has as two MatMuls with a Softmax between them."""
    if query.dim() == 4 and query.shape[:2] == transposed_key.shape[:2] == value.shape[:2]:
        mask = None if mask is None else mask.to(query.dtype)
        return F.scaled_dot_product_attention(query, transposed_key.transpose(-1, -2), value, mask, scale=1.0)
    scores = query @ transposed_key
    return torch.softmax((scores if mask is None else scores + mask).float(), -1).to(value.dtype) @ value


def _cast(x: Tensor, to: int) -> Tensor:
    return x.to(DTYPES[to])


def _conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    strides: Sizes = (),
    pads: Sizes = (),
    dilations: Sizes = (),
    group: int = 1,
    **_: Any,
) -> Tensor:
    rank = x.dim() - 2
    before, after = list(pads[:rank]), list(pads[rank:])
    if before != after:
        x, before = F.pad(x, [n for pair in zip(reversed(before), reversed(after), strict=True) for n in pair]), []
    ones, none = [1] * rank, [0] * rank
    return torch.convolution(x, weight, bias, list(strides) or ones, before or none, list(dilations) or ones, False, none, group)


def _div(a: Any, b: Any) -> Any:
    whole = isinstance(a, Tensor) and not a.is_floating_point()
    return torch.div(a, b, rounding_mode="trunc") if whole else a / b


def _expand(x: Tensor, shape: Sizes) -> Tensor:
    return x.expand(torch.broadcast_shapes(x.shape, tuple(shape)))  # type: ignore[no-untyped-call]


def _gather(x: Tensor, indices: Tensor, axis: int = 0) -> Tensor:
    rows: Tensor = x[(slice(None),) * (axis % x.dim()) + (indices,)]
    return rows


def _gemm(a: Tensor, b: Tensor, c: Tensor | None = None, alpha: float = 1.0, beta: float = 1.0, transA: int = 0, transB: int = 0) -> Tensor:
    a = a.t() if transA else a
    if transB and c is not None and c.dim() == 1 and alpha == beta == 1.0:
        return F.linear(a, b, c)
    product = alpha * (a @ (b.t() if transB else b))
    return product if c is None else product + beta * c


def _layer_norm(x: Tensor, scale: Tensor, bias: Tensor | None = None, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1) -> Tensor:
    return F.layer_norm(x, x.shape[axis:], scale, bias, epsilon)


def _pad(x: Tensor, pads: Sizes, value: float | None = None, axes: Sizes | None = None, mode: str = "constant") -> Tensor:
    axes = range(x.dim()) if axes is None else [axis % x.dim() for axis in axes]
    amounts = [0] * (2 * x.dim())
    for i, axis in enumerate(axes):
        amounts[-2 * axis - 2 : len(amounts) - 2 * axis] = pads[i], pads[i + len(axes)]
    return F.pad(x, amounts, value=value or 0.0)


def _reshape(x: Tensor, shape: Sizes, allowzero: int = 0) -> Tensor:
    return x.reshape(list(shape) if allowzero else [x.shape[i] if size == 0 else size for i, size in enumerate(shape)])


def _resize(x: Tensor, _: Any, scales: Sequence[float], **__: Any) -> Tensor:
    return F.interpolate(x, scale_factor=list(scales[2:]), mode="nearest")


def _slice(x: Any, starts: Sizes, ends: Sizes, axes: Sizes | None = None, steps: Sizes | None = None) -> Any:
    ranges = [slice(_near(start), _near(end), step) for start, end, step in zip(starts, ends, steps or [1] * len(starts), strict=True)]
    if isinstance(x, tuple):
        return x[ranges[0]]
    index = [slice(None)] * x.dim()
    for axis, each in zip(axes or range(len(starts)), ranges, strict=True):
        index[axis] = each
    return x[tuple(index)]


def _near(index: int) -> int:
    """Limit an index: ONNX writes "to the end" as the largest integer, of which torch warns."""
    return max(min(index, _FAR), -_FAR) if isinstance(index, int) else index


def _split(x: Tensor, sizes: Sizes | None = None, axis: int = 0, num_outputs: int = 1) -> tuple[Tensor, ...]:
    return torch.split(x, list(sizes) if sizes else -(-x.shape[axis] // num_outputs), axis)


def _unsqueeze(x: Tensor, axes: Sizes) -> Tensor:
    rank = x.dim() + len(axes)
    return functools.reduce(torch.unsqueeze, sorted(axis % rank for axis in axes), x)


OPERATORS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "Abs": torch.abs,
        "Add": operator.add,
        "And": torch.logical_and,
        "ArgMax": lambda x, axis=0, keepdims=1, select_last_index=0: x.argmax(axis, bool(keepdims)),
        "Cast": _cast,
        "Clip": lambda x, least=None, most=None: torch.clamp(x, least, most),
        "Concat": lambda *x, axis: torch.cat(x, axis),
        "Conv": _conv,
        "Cos": torch.cos,
        "DepthToSpace": lambda x, blocksize, mode: F.pixel_shuffle(x, blocksize),
        "Div": _div,
        "Einsum": lambda *x, equation: torch.einsum(equation, *x),
        "Equal": operator.eq,
        "Erf": torch.erf,
        "Exp": torch.exp,
        "Expand": _expand,
        "Gather": _gather,
        "GatherND": lambda x, indices, batch_dims=0: x[indices.unbind(-1)],
        "Gelu": lambda x, approximate="none": F.gelu(x, approximate=approximate),
        "Gemm": _gemm,
        "Identity": lambda x: x,
        "InstanceNormalization": lambda x, scale, bias, epsilon=1e-5: F.group_norm(x, x.shape[1], scale, bias, epsilon),
        "IsNaN": torch.isnan,
        "LayerNormalization": _layer_norm,
        "Log": torch.log,
        "MatMul": torch.matmul,
        ATTENTION: attention,
        "Max": lambda *x: functools.reduce(torch.maximum, x),
        "Min": lambda *x: functools.reduce(torch.minimum, x),
        "Mul": operator.mul,
        "Neg": operator.neg,
        "Not": torch.logical_not,
        "Pad": _pad,
        "Pow": operator.pow,
        "Range": lambda start, limit, delta, device: torch.arange(start, limit, delta, device=device),
        "Reciprocal": torch.reciprocal,
        "ReduceMean": lambda x, axes, keepdims=1, noop_with_empty_axes=0: x.mean(tuple(axes), bool(keepdims)),
        "ReduceSum": lambda x, axes, keepdims=1, noop_with_empty_axes=0: x.sum(tuple(axes), bool(keepdims)),
        "Relu": torch.relu,
        "Reshape": _reshape,
        "Resize": _resize,
        "Shape": lambda x, start=0, end=None: tuple(x.shape)[start:end],
        "Sigmoid": torch.sigmoid,
        "Sin": torch.sin,
        "Slice": _slice,
        "Softmax": lambda x, axis=-1: torch.softmax(x, axis),
        "Split": _split,
        "Sqrt": torch.sqrt,
        "Squeeze": lambda x, axes=None: x.squeeze() if axes is None else x.squeeze(tuple(axes)),
        "Sub": operator.sub,
        "Tanh": torch.tanh,
        "Transpose": lambda x, perm: x.permute(tuple(perm)),
        "Unsqueeze": _unsqueeze,
        "Where": torch.where,
    }
)

ON_SIZES: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "Concat": lambda *x, axis: sum(x, ()),
        "Reshape": lambda x, shape, allowzero=0: x if isinstance(x, tuple) else (x,),
        "Slice": _slice,
        "Squeeze": lambda x, axes=None: x[0],
        "Unsqueeze": lambda x, axes: (x,),
    }
)
"""Operators on sizes: tuples of integers, not tensors, that Shape returns and that are computed from its result."""

ONLY: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "ArgMax": {"select_last_index": 0},
        "Conv": {"auto_pad": "NOTSET"},
        "DepthToSpace": {"mode": "CRD"},
        "GatherND": {"batch_dims": 0},
        "LayerNormalization": {"stash_type": 1},
        "Pad": {"mode": "constant"},
        "Resize": {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"},
    }
)
"""Operator → the only value of an attribute that is translated, if ONNX allows others."""

TAKES_SIZES = frozenset(
    {"Expand", "Pad", "Range", "ReduceMean", "ReduceSum", "Reshape", "Resize", "Slice", "Split", "Squeeze", "Unsqueeze"}
)
"""Operators whose inputs after the first are sizes (for Range, all inputs)."""
TAKES_NUMBERS = frozenset({"Add", "Clip", "Div", "Mul", "Pow", "Sub", "Where"})
"""Operators that also take a number instead of a tensor, which is faster and never widens a type."""
NARROW = frozenset({ATTENTION, "Conv", "Einsum", "Gemm", "MatMul"})
"""Operators that a 16-bit variant computes in 16 bits."""
WIDE = frozenset(
    {
        "Cos",
        "Exp",
        "InstanceNormalization",
        "LayerNormalization",
        "Log",
        "Pow",
        "Reciprocal",
        "ReduceMean",
        "ReduceSum",
        "Sin",
        "Softmax",
        "Sqrt",
    }
)
"""Operators that a 16-bit variant computes in float32. All others compute in the widest type of their inputs."""
