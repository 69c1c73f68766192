"""One step of a sampler for a batch of rows: guidance and linear update in one pass. The public face of the step kernel."""

from __future__ import annotations

from collections.abc import Sequence

from .. import kernels
from ..types import Floats
from .twins import step as twin

__all__ = ["GUIDANCE", "HISTORY", "INPUT_SCALE", "NOISE", "OUTPUTS", "SAMPLES", "WIDTH", "step"]

HISTORY = twin.HISTORY
"""Largest number of samples and of outputs in an update, including those of this call."""

# Columns of `weights`.
SAMPLES, OUTPUTS = slice(0, HISTORY), slice(HISTORY, 2 * HISTORY)
NOISE, GUIDANCE, INPUT_SCALE = range(2 * HISTORY, 2 * HISTORY + 3)
WIDTH = INPUT_SCALE + 1


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
    """Write the next sample of each row to `out`; each row has weights of its own, so rows may be at different steps.

        m = unconditional + guidance · (outputs[0] − unconditional)       outputs[0] itself where `unconditional` is None
        out = Σ_i samples_weight_i · samples[i] + outputs_weight_0 · m + Σ_j>0 outputs_weight_j · outputs[j] + noise_weight · noise

    An array is not read in rows where its weight is zero: it may contain anything there, even NaN. A row's result does not
    depend on the other rows or on the instruction set, bit for bit.

    Args:
        weights: (b, 11) float32; the columns SAMPLES, OUTPUTS (both newest first), NOISE, GUIDANCE, INPUT_SCALE.
        samples: 1 to 4 arrays (b, …) float32, the newest first.
        outputs: 1 to 4 arrays (b, …) float32: the model's output of this call (under guidance the conditional one), then
            the outputs of earlier calls.
        out: (b, …) float32, written. A written array may be the same as one that is read, such as the oldest sample, but
            must not overlap it in part.
        unconditional: (b, …) float32, the output of this call without its condition.
        noise: (b, …) float32.
        guided: (b, …) float32, receives m, if a later call needs it.
        scaled: (b, …) float32, receives out · input_scale, the model's next input.

    Raises:
        TypeError: an argument is not a C-contiguous NumPy array of its dtype and dimensions; nothing is converted.
        ValueError: shapes do not fit together, arrays overlap, or the weight of a missing array is not zero.
    """
    if not kernels.compiled():
        twin.step(weights, samples, outputs, out=out, unconditional=unconditional, noise=noise, guided=guided, scaled=scaled)
        return
    try:
        kernels.native.step(weights, samples, outputs, unconditional, noise, out, guided, scaled)
    except TypeError:  # nanobind's message lists every argument; this check names the wrong one
        twin.check_step(weights, samples, outputs, out=out, unconditional=unconditional, noise=noise, guided=guided, scaled=scaled)
        raise
