"""Convert a diffusers noise scheduler to a step table by running it once on basis vectors.

The update of a linear noise scheduler is the same for every element, so one walk in which the first sample, each model
output and each noise is another unit vector yields the whole linear map; the shortest history that explains each row
is then fitted. A residual cannot show clipping (basis vectors are too small to be clipped), so a random walk of real
magnitude is always replayed beside the scheduler's own loop.
"""

from __future__ import annotations

import copy
import inspect
import itertools
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import numpy as np
import torch

from resynth_fast.errors import ConfigError
from resynth_fast.types import Doubles

MAX_HISTORY = 4  # samples or outputs of this call and three earlier ones
FIT_TOLERANCE = 3e-6
WALK_TOLERANCE = 1e-5
# Noise schedulers compute in float32: where a walk starts at 4096 (zero-terminal SNR) and ends at 1, rounding at the start
# exceeds the tolerance at the end.
ROUNDING = 32 * float(np.finfo(np.float32).eps)
WAY_OUT = "choose another noise scheduler, for example DDIMScheduler.from_config(scheduler.config, clip_sample=False)"


class NotLinear(ConfigError):
    """A noise scheduler that cannot be expressed as a step table."""


def step_table(scheduler: Any, steps: int, **arguments: Any) -> dict[str, Any]:
    """The step table of `scheduler` (diffusers) at `steps` steps, as a bundle's manifest holds it.

    `arguments` go to `set_timesteps` as the pipeline passes them (FLUX: `sigmas` and `mu`); the scheduler given is not
    changed. NotLinear if its update is not linear, or reaches back further than three calls.
    """
    name = type(scheduler).__name__
    settings = _nonlinear_settings(scheduler)
    if any(setting.startswith("variance_type") for setting in settings):
        raise NotLinear(f"{name}: {', '.join(settings)} makes the model predict the variance, which is not linear; {WAY_OUT}")

    def prepared() -> Any:
        fresh = copy.deepcopy(scheduler)
        # A pipeline passes either noise levels or their number.
        given = {} if {"sigmas", "timesteps"} & arguments.keys() else {"num_inference_steps": steps}
        fresh.set_timesteps(**given, **arguments)
        return fresh

    probed = prepared()
    start = float(getattr(probed, "init_noise_sigma", 1.0))
    try:
        table = {"noise_scheduler": name, "init_noise_sigma": start, "rows": _fit(probed)}
    except np.linalg.LinAlgError as unsolved:
        raise NotLinear(f"{name} at {steps} steps reaches values that are not finite; {WAY_OUT}") from unsolved
    error = _replay(prepared(), table)
    if not error <= 1:  # NaN is refused as well
        because = f" (its settings: {', '.join(settings)})" if settings else ""
        raise NotLinear(
            f"{name} at {steps} steps cannot be a step table: "
            f"a replayed walk differs by {error:.1e} times the tolerance{because}; {WAY_OUT}"
        )
    return table


@contextmanager
def drawing(scheduler: Any, draw: Callable[[tuple[int, ...]], torch.Tensor]) -> Iterator[None]:
    """Make `scheduler` take its noise from `draw(shape)` while open; only schedulers of the same module are affected."""

    def randn_tensor(shape: tuple[int, ...], *_: Any, dtype: torch.dtype | None = None, **__: Any) -> torch.Tensor:
        return draw(tuple(shape)).to(dtype or torch.float32)

    modules = {sys.modules[cls.__module__] for cls in type(scheduler).__mro__ if cls.__module__.startswith("diffusers.")}
    with ExitStack() as stack:
        for module in modules:
            if hasattr(module, "randn_tensor"):
                stack.enter_context(mock.patch.object(module, "randn_tensor", randn_tensor))
        yield


def _nonlinear_settings(scheduler: Any) -> list[str]:
    """Active settings that are known to break linearity, as `name=value`."""
    config = dict(scheduler.config)
    found = [f"{key}=True" for key in ("clip_sample", "thresholding", "clip_denoised") if config.get(key) is True]
    variance = str(config.get("variance_type"))
    return [*found, f"variance_type={variance}"] if variance.startswith("learned") else found


def _step(scheduler: Any, output: torch.Tensor, timestep: Any, sample: torch.Tensor) -> torch.Tensor:
    extra = {"generator": None} if "generator" in inspect.signature(scheduler.step).parameters else {}
    result: torch.Tensor = scheduler.step(output, timestep, sample, **extra).prev_sample
    return result.float()


def _scaled(scheduler: Any, sample: torch.Tensor, timestep: Any) -> torch.Tensor:
    scaled: torch.Tensor = scheduler.scale_model_input(sample.clone(), timestep) if hasattr(scheduler, "scale_model_input") else sample
    return scaled


def _fit(scheduler: Any) -> list[dict[str, Any]]:
    """Rows of the table, from one walk on basis vectors. Where no short history fits, the replay fails.

    Axis 0 is the first sample, axes 1 … n the model outputs, the others noises (a few schedulers draw twice a call).
    """
    timesteps = list(scheduler.timesteps)
    calls = len(timesteps)
    width = 1 + calls + 2 * calls + 2
    basis = torch.eye(width).reshape(width, 1, 1, 1, width)
    axes = itertools.count(1 + calls)
    drawn: list[int] = []

    def draw(_: tuple[int, ...]) -> torch.Tensor:
        drawn.append(next(axes))
        return basis[drawn[-1]]

    samples, rows = [basis[0]], []
    with drawing(scheduler, draw):
        for call, timestep in enumerate(timesteps):
            sample, before = samples[-1], len(drawn)
            largest = sample.abs().argmax()
            scale = float(_scaled(scheduler, sample, timestep).flatten()[largest] / sample.flatten()[largest])
            samples.append(_step(scheduler, basis[1 + call], timestep, sample))
            history = _shortest(torch.stack(samples).flatten(1).double().numpy(), call, drawn[before:])
            rows.append({"timestep": float(timestep), "input_scale": scale, **history})
    return rows


def _shortest(samples: Doubles, call: int, noises: list[int]) -> dict[str, Any]:
    """Coefficients of the shortest history of samples (call + 2, width) and outputs that gives the last sample.

    `noises` are the axes drawn in this call; the runtime draws one, so that the replay fails where two are used.
    """
    if not np.isfinite(samples).all():
        raise np.linalg.LinAlgError("not finite")  # LAPACK would print this to stdout
    unit, target = np.eye(samples.shape[1]), samples[-1]
    lengths = sorted(itertools.product(range(1, MAX_HISTORY + 1), repeat=2), key=lambda pair: (sum(pair), pair[0]))
    row: dict[str, Any] = {}
    for back, outputs in ((min(back, call + 1), min(outputs, call + 1)) for back, outputs in lengths):
        terms = np.stack([*(samples[call - i] for i in range(back)), *(unit[1 + call - j] for j in range(outputs)), *unit[noises]])
        norms = np.maximum(np.abs(terms).max(1, keepdims=True), 1e-30)
        weights = np.linalg.lstsq((terms / norms).T, target, rcond=1e-9)[0] / norms[:, 0]
        residual = float(np.abs(weights @ terms - target).max() / max(np.abs(target).max(), 1e-9))
        noise = float(weights[back + outputs :].sum())
        row = {
            "samples": weights[:back].tolist(),
            "outputs": weights[back : back + outputs].tolist(),
            "noise": noise if abs(noise) > 1e-9 else 0.0,
        }
        if residual < FIT_TOLERANCE:
            break
    return row


def _replay(scheduler: Any, table: dict[str, Any]) -> float:
    """Largest difference between the scheduler's loop and the table's, relative to the tolerance.

    The tolerance is WALK_TOLERANCE of the sample's magnitude, or the rounding of float32 at the walk's largest magnitude.
    The model is any bounded function of its input; its predicted pictures reach far outside of [-1, 1].
    """
    rng = torch.Generator().manual_seed(0)
    shape = (1, 4, 8, 8)
    start = torch.randn(shape, generator=rng)
    drifts = torch.randn((len(table["rows"]), *shape), generator=rng)
    drawn: list[torch.Tensor] = []

    def draw(wanted: tuple[int, ...]) -> torch.Tensor:
        drawn.append(torch.randn(wanted, generator=rng))
        return drawn[-1]

    sample = start * table["init_noise_sigma"]
    mine = sample.double().numpy()
    mines, worst, largest = [mine], 0.0, float(sample.abs().max())
    outputs: list[Doubles] = []
    with drawing(scheduler, draw):
        for call, (timestep, row) in enumerate(zip(scheduler.timesteps, table["rows"], strict=True)):
            outputs.insert(0, np.tanh(mines[0] * row["input_scale"]) + drifts[call].double().numpy())
            before = len(drawn)
            output = torch.tanh(_scaled(scheduler, sample, timestep)) + drifts[call]
            sample = _step(scheduler, output, timestep, sample)
            mine = sum((w * x for w, x in zip(row["samples"], mines, strict=False)), np.zeros(shape))
            mine = mine + sum(w * m for w, m in zip(row["outputs"], outputs, strict=False))
            if row["noise"]:
                mine = mine + row["noise"] * drawn[before].double().numpy()
            mines.insert(0, mine)
            magnitude = max(float(sample.abs().max()), 1e-9)
            largest = max(largest, magnitude)
            share = np.abs(sample.double().numpy() - mine).max() / max(WALK_TOLERANCE * magnitude, ROUNDING * largest)
            worst = max(worst, float(share)) if np.isfinite(share) else np.inf
    return worst
