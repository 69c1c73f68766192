"""A sampler is a table: the walk from noise to latents, for any linear noise scheduler.

For each model call of the table,

    m = denoise(input_scale · x, timestep)                  under guidance m = u + scale · (c − u)
    x ← Σ_i samples_i · x_i + Σ_j outputs_j · m_j + noise · ξ

where x_i and m_j are this and earlier calls' samples and outputs, newest first, and x starts at init_noise_sigma · ξ.
The tables are read off diffusers' noise schedulers by `resynth_fast.export.step_table`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .bundle import Guidance, StepTable
from .devices.base import CPU, Device
from .errors import BundleError
from .kernels.step import GUIDANCE, HISTORY, INPUT_SCALE, NOISE, OUTPUTS, SAMPLES, WIDTH
from .types import A, Floats


def walk(
    table: StepTable,
    noise: Callable[[int], A],
    denoise: Callable[[A, float], A],
    guidance: float | None = None,
    device: Device[A] = CPU,  # type: ignore[assignment]
) -> A:
    """Sample latents with a step table. All arrays are on `device` and stay there.

    Args:
        table: the sampler.
        noise: call number → standard normals (b, c, h, w); call 0 is the start, 1 … n are the rows of the table.
        denoise: latents (b, c, h, w) and timestep → the model's output of the same shape, in memory that the walk may
            overwrite. With `guidance` it returns (2 b, c, h, w): the unconditional rows, then the conditional ones.
        guidance: scale of classifier-free guidance; None: without it.
        device: where the arrays are.

    Returns:
        Latents (b, c, h, w).

    Raises:
        BundleError: the table has no rows, or a row refers to more earlier calls than the step kernel keeps.
    """
    on_host = weights_of(table, guidance)
    kept_samples, kept_outputs = (max(len(getattr(row, kind)) for row in table.rows) for kind in ("samples", "outputs"))
    start = noise(0)
    weights = device.to_device(on_host.repeat(len(start), axis=1))
    x, scaled = device.empty_like(start), device.empty_like(start)
    device.step(weights[0], [start], [start], out=x, scaled=scaled)
    samples: list[A] = [x]
    outputs: list[A] = []
    for call, row in enumerate(table.rows, start=1):
        output, unconditional = denoise(scaled, row.timestep), None
        if guidance is not None:
            unconditional, output = output[: len(x)], output[len(x) :]
        outputs = [output, *outputs][:kept_outputs]
        out = samples[-1] if len(samples) == kept_samples else device.empty_like(x)  # over the oldest, read for the last time
        device.step(
            weights[call],
            samples,
            outputs,
            out=out,
            unconditional=unconditional,
            noise=noise(call) if row.noise else None,
            guided=output if guidance is not None and kept_outputs > 1 else None,
            scaled=scaled,
        )
        samples = [out, *samples][:kept_samples]
    return samples[0]


def weights_of(table: StepTable, guidance: float | None = None) -> Floats:
    """(1 + calls, 1, 11): what `step` multiplies for the start and in each model call; rows at different steps take different ones."""
    if not table.rows:
        raise BundleError(f"step table of {table.noise_scheduler} has no rows; export the bundle again")
    weights = np.zeros((1 + len(table.rows), 1, WIDTH), np.float32)
    weights[0, 0, SAMPLES.start], weights[0, 0, INPUT_SCALE] = table.init_noise_sigma, table.rows[0].input_scale
    for call, (row, of_row) in enumerate(zip(table.rows, weights[1:, 0], strict=True), start=1):
        for kind, columns, values in (("samples", SAMPLES, row.samples), ("outputs", OUTPUTS, row.outputs)):
            if not 1 <= len(values) <= min(call, HISTORY):
                raise BundleError(
                    f"step table of {table.noise_scheduler}: call {call} weights {len(values)} {kind}, "
                    f"there are 1 to {min(call, HISTORY)}; export the bundle again"
                )
            of_row[columns][: len(values)] = values
        of_row[NOISE], of_row[GUIDANCE] = row.noise, guidance or 0.0
        of_row[INPUT_SCALE] = table.rows[call].input_scale if call < len(table.rows) else 1.0
    return weights


def rescaled(output: A, guidance: Guidance, device: Device[A] = CPU) -> A:  # type: ignore[assignment]
    """Rescale guidance to the deviation of each conditional row by the share `guidance.rescale`.

    Lin et al. 2023, arXiv 2305.08891, section 3.4.

    `output` (2 b, c, h, w): the unconditional rows, then the conditional ones; returns (b, c, h, w).
    """
    half = len(output) // 2
    unconditional, conditional = output[:half], output[half:]
    guided = device.empty_like(conditional)
    weights = np.zeros((half, WIDTH), np.float32)
    weights[:, OUTPUTS.start], weights[:, GUIDANCE] = 1.0, guidance.scale
    device.step(device.to_device(weights), [conditional], [conditional], out=guided, unconditional=unconditional)
    weights[:, OUTPUTS.start] = guidance.rescale * device.deviation(conditional) / device.deviation(guided) + (1 - guidance.rescale)
    device.step(device.to_device(weights), [guided], [guided], out=guided)
    return guided
