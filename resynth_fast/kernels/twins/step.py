"""Twin of the step kernel."""

from collections.abc import Sequence

import numpy as np

from ...types import Floats
from .checks import check_array

HISTORY = 4


def step(
    weights: Floats,
    samples: Sequence[Floats],
    outputs: Sequence[Floats],
    *,
    out: Floats,
    unconditional: Floats | None = None,
    noise: Floats | None = None,
    guided: Floats | None = None,
    scaled: Floats | None = None,
) -> None:
    """See :func:`resynth_fast.kernels.step.step`."""
    check_step(weights, samples, outputs, out=out, unconditional=unconditional, noise=noise, guided=guided, scaled=scaled)
    with np.errstate(over="ignore", invalid="ignore"):  # infinities and NaN propagate, as in the kernel
        for r, row in enumerate(weights.astype(np.float64)):
            output = outputs[0][r].astype(np.float64)
            if unconditional is not None:
                output = unconditional[r] + row[2 * HISTORY + 1] * (output - unconditional[r])
            terms = [output, *(array[r] for array in (*samples, *outputs[1:])), *([] if noise is None else [noise[r]])]
            factors = [row[HISTORY], *row[: len(samples)], *row[HISTORY + 1 : HISTORY + len(outputs)], row[2 * HISTORY]]
            x = sum((factor * term for factor, term in zip(factors, terms, strict=False) if factor), np.zeros(out.shape[1:]))
            for to, value in ((out, x), (guided, output), (scaled, x * row[2 * HISTORY + 2])):
                if to is not None:
                    to[r] = value


def check_step(
    weights: Floats,
    samples: Sequence[Floats],
    outputs: Sequence[Floats],
    *,
    out: Floats,
    unconditional: Floats | None,
    noise: Floats | None,
    guided: Floats | None,
    scaled: Floats | None,
) -> None:
    """Raise TypeError or ValueError, naming the argument, its value and what is allowed, unless they fit together."""
    check_array("weights", weights, np.float32, 2)
    for name, arrays in (("samples", samples), ("outputs", outputs)):
        if not isinstance(arrays, Sequence):
            raise TypeError(f"{name} is a {type(arrays).__name__}; it must be a list of arrays")
        if not 1 <= len(arrays) <= HISTORY:
            raise ValueError(f"{name} has {len(arrays)} arrays; it must have 1 to {HISTORY}")
    read = {f"samples[{i}]": array for i, array in enumerate(samples)} | {f"outputs[{j}]": array for j, array in enumerate(outputs)}
    read |= {name: array for name, array in (("unconditional", unconditional), ("noise", noise)) if array is not None}
    written = {name: array for name, array in (("out", out), ("guided", guided), ("scaled", scaled)) if array is not None}
    for name, array in (written | read).items():
        check_array(name, array, np.float32, max(np.ndim(out), 1))
        if name in written and not array.flags.writeable:
            raise TypeError(f"{name} is read-only; it is written to")
        if array.shape != out.shape:
            raise ValueError(f"{name} has shape {array.shape}; it must have {out.shape}, as out has")
    if weights.shape != (len(out), 2 * HISTORY + 3):
        raise ValueError(f"weights has shape {weights.shape}; it must have ({len(out)}, {2 * HISTORY + 3})")
    _check_overlap(read, written)
    present = [i < len(samples) for i in range(HISTORY)] + [j < len(outputs) for j in range(HISTORY)] + [noise is not None]
    names = [f"{kind}[{i}]" for kind in ("samples", "outputs") for i in range(HISTORY)] + ["noise"]
    for r, row in enumerate(weights):
        for column, name in enumerate(names):
            if row[column] != 0 and not present[column]:
                raise ValueError(f"weights[{r}, {column}] is {row[column]:g}, but there is no {name} that it could weight")


def _check_overlap(read: dict[str, Floats], written: dict[str, Floats]) -> None:
    for name, array in written.items():
        for other, also in read.items():
            if np.may_share_memory(array, also) and array.ctypes.data != also.ctypes.data:
                raise ValueError(f"{name} overlaps {other}; it must be the same array or share no memory with it")
        for other, also in written.items():
            if name != other and np.may_share_memory(array, also):
                raise ValueError(f"{name} overlaps {other}; both are written and must not share memory")
