"""A sampler is a table: the walk from noise to latents, for any linear noise scheduler.

For each model call of the table,

    m = denoise(input_scale · x, timestep)
    x ← Σ_i samples_i · x_i + Σ_j outputs_j · m_j + noise · ξ

where x_i and m_j are this and earlier calls' samples and outputs, newest first, and x starts at init_noise_sigma · ξ.
The tables are read off diffusers' noise schedulers by `resynth_fast.export.step_table`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from .bundle import StepTable

Latents = npt.NDArray[np.float32]


def walk(table: StepTable, noise: Callable[[int], Latents], denoise: Callable[[Latents, float], Latents]) -> Latents:
    """Walk `table`.

    `noise(call)` gives the normals (b, c, h, w) of a call, 0 for the start and 1 … n for the rows of the table;
    `denoise(latents, timestep)` the model's output of the same shape. Returns latents (b, c, h, w).
    """
    x = noise(0) * np.float32(table.init_noise_sigma)
    samples: list[Latents] = []
    outputs: list[Latents] = []
    for call, row in enumerate(table.rows, start=1):
        samples = [x, *samples][: max(len(r.samples) for r in table.rows)]
        outputs = [denoise(x * np.float32(row.input_scale), row.timestep), *outputs][: max(len(r.outputs) for r in table.rows)]
        x = np.zeros_like(x)
        for weight, term in (*zip(row.samples, samples, strict=False), *zip(row.outputs, outputs, strict=False)):
            x += np.float32(weight) * term
        if row.noise:
            x += np.float32(row.noise) * noise(call)
    return x


def guided(unconditional: Latents, conditional: Latents, scale: float) -> Latents:
    """Classifier-free guidance (Ho & Salimans 2022): u + scale (c − u)."""
    return unconditional + np.float32(scale) * (conditional - unconditional)
