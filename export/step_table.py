"""Convert a diffusers noise scheduler to a step table by running it once on basis vectors.

The update of a linear noise scheduler is the same for every element, so one walk in which the first sample, each model
output and each noise is another unit vector yields the whole linear map; the history that explains each row best is then
fitted. A residual cannot show clipping (basis vectors are too small to be clipped), nor how errors grow from call to call,
so the runtime's walk is always compared with the scheduler's own loop (`replay`).
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from resynth_fast.bundle import StepTable
from resynth_fast.errors import ConfigError
from resynth_fast.types import Doubles

from . import checkpoints, replay

MAX_HISTORY = 4  # samples or outputs of this call and three earlier ones
EXACT = 1e-12  # no history fits better than this in float64
RANK = 1e-13
WALK_TOLERANCE = 1e-5
MAX_WALK_TOLERANCE = 1e-3
ROUNDINGS = 8  # the runtime sums in another order, with weights rounded to float32
WAY_OUT = "choose another noise scheduler, for example DDIMScheduler.from_config(scheduler.config, clip_sample=False)"


class NotLinear(ConfigError):
    """A noise scheduler that cannot be expressed as a step table."""


def step_table(scheduler: Any, steps: int, **arguments: Any) -> dict[str, Any]:
    """The step table of `scheduler` (diffusers) at `steps` steps, as a bundle's manifest holds it.

    `arguments` go to `set_timesteps` as the pipeline passes them (FLUX: `sigmas` and `mu`); the scheduler given is not
    changed. NotLinear if its update is not linear, or reaches back further than three calls; ConfigError if the scheduler
    itself cannot take this number of steps.
    """
    name = type(scheduler).__name__
    settings = _nonlinear_settings(scheduler)
    if any(setting.startswith("variance_type") for setting in settings):
        raise NotLinear(f"{name}: {', '.join(settings)} makes the model predict the variance, which is not linear; {WAY_OUT}")
    if steps > (trained := int(scheduler.config.get("num_train_timesteps", steps))):
        raise ConfigError(f"{steps} steps are more than the {trained} noise levels that {name} has; choose fewer with --steps")

    with_timesteps = copy.deepcopy(scheduler)
    # A pipeline passes either noise levels or their number.
    given = {} if {"sigmas", "timesteps"} & arguments.keys() else {"num_inference_steps": steps}

    def prepared() -> Any:
        return copy.deepcopy(with_timesteps)

    try:
        with_timesteps.set_timesteps(**given, **arguments)
        start = float(getattr(with_timesteps, "init_noise_sigma", 1.0))
        table = {"noise_scheduler": name, "init_noise_sigma": start, "rows": _fit(prepared())}
    except np.linalg.LinAlgError as unsolved:
        raise NotLinear(f"{name} at {steps} steps reaches values that are not finite; {WAY_OUT}") from unsolved
    except Exception as refused:  # diffusers' own refusals share no base class
        raise ConfigError(
            f"{name} cannot take {steps} steps in the loop of a text-to-image pipeline "
            f"({checkpoints.line(refused)}); choose other numbers with --steps, or another noise scheduler"
        ) from refused
    error = _replay(prepared, table)
    if not error <= 1:  # NaN is refused as well
        because = f" (its settings: {', '.join(settings)})" if settings else ""
        raise NotLinear(
            f"{name} at {steps} steps cannot be a step table: "
            f"a replayed walk differs by {error:.1e} times the tolerance{because}; {WAY_OUT}"
        )
    return table


def _nonlinear_settings(scheduler: Any) -> list[str]:
    """Active settings that are known to break linearity, as `name=value`."""
    config = dict(scheduler.config)
    found = [f"{key}=True" for key in ("clip_sample", "thresholding", "clip_denoised") if config.get(key) is True]
    variance = str(config.get("variance_type"))
    return [*found, f"variance_type={variance}"] if variance.startswith("learned") else found


def _fit(scheduler: Any) -> list[dict[str, Any]]:
    """Rows of the table, from one walk on basis vectors in float64. Where no history fits, the replay fails.

    Axis 0 is the first sample, axes 1 … n the model outputs, the others noises (a few schedulers draw twice a call).
    """
    timesteps = list(scheduler.timesteps)
    calls = len(timesteps)
    width = 1 + calls + 2 * calls + 2
    basis = torch.eye(width, dtype=torch.float64).reshape(width, 1, 1, 1, width)
    axes = itertools.count(1 + calls)
    drawn: list[int] = []

    def draw(_: tuple[int, ...]) -> torch.Tensor:
        drawn.append(next(axes))
        return basis[drawn[-1]]

    samples, rows = [basis[0]], []
    with replay.drawing(scheduler, draw, torch.float64):
        for call, timestep in enumerate(timesteps):
            sample, before = samples[-1], len(drawn)
            largest = sample.abs().argmax()
            scale = float(replay.scaled(scheduler, sample, timestep).flatten()[largest] / sample.flatten()[largest])
            samples.append(replay.step(scheduler, basis[1 + call], timestep, sample).double())
            history = _history(torch.stack(samples).flatten(1).numpy(), call, drawn[before:])
            rows.append({"timestep": float(timestep), "input_scale": scale, **history})
    return rows


def _history(samples: Doubles, call: int, noises: list[int]) -> dict[str, Any]:
    """Coefficients of the history of samples (call + 2, width) and outputs that gives the last sample.

    It is the shortest of those that fit about as well as the best. A shorter one that only nearly fits will not do: its
    errors add up over the calls, and grow where later terms cancel. `noises` are the axes drawn in this call; the runtime
    draws one, so that the replay fails where two are used.
    """
    if not np.isfinite(samples).all():
        raise np.linalg.LinAlgError("not finite")  # LAPACK would print this to stdout
    unit, target = np.eye(samples.shape[1]), samples[-1]
    lengths = sorted(itertools.product(range(1, MAX_HISTORY + 1), repeat=2), key=lambda pair: (sum(pair), pair[0]))
    fits: list[tuple[float, dict[str, Any]]] = []
    for back, outputs in dict.fromkeys((min(back, call + 1), min(outputs, call + 1)) for back, outputs in lengths):
        terms = np.stack([*(samples[call - i] for i in range(back)), *(unit[1 + call - j] for j in range(outputs)), *unit[noises]])
        norms = np.maximum(np.abs(terms).max(1, keepdims=True), 1e-30)
        weights = np.linalg.lstsq((terms / norms).T, target, rcond=RANK)[0] / norms[:, 0]
        residual = float(np.abs(weights @ terms - target).max() / max(np.abs(target).max(), 1e-9))
        noise = float(weights[back + outputs :].sum())
        row = {
            "samples": weights[:back].tolist(),
            "outputs": weights[back : back + outputs].tolist(),
            "noise": noise if abs(noise) > 1e-9 else 0.0,
        }
        if residual <= EXACT:
            return row
        fits.append((residual, row))
    least = min(residual for residual, _ in fits)
    return next(row for residual, row in fits if residual <= 4 * least)


def _replay(prepared: Callable[[], Any], table: dict[str, Any]) -> float:
    """Largest difference between the runtime's walk of the table and the scheduler's own loop in float64, relative to the tolerance.

    The tolerance is WALK_TOLERANCE, or a few times what the scheduler's own loop loses in float32, but never above
    MAX_WALK_TOLERANCE, from where it would show in pictures.
    """
    walked = StepTable.read(table)
    model, rows = replay.models(prepared(), len(walked.rows))
    noises = np.random.default_rng(0).standard_normal((1 + len(walked.rows), rows, *replay.SHAPE))
    expected = replay.own_walk(prepared(), model, noises, torch.float64)
    error = replay.difference(replay.table_walk(walked, model, noises), expected)
    if error <= WALK_TOLERANCE:
        return error / WALK_TOLERANCE
    rounded = replay.difference(replay.own_walk(prepared(), model, noises, torch.float32), expected)
    return error / min(max(ROUNDINGS * rounded, WALK_TOLERANCE), MAX_WALK_TOLERANCE)
