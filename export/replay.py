"""Replay a step table beside the noise scheduler's own loop, under models whose answer is known.

Two models: the ideal denoiser of Gaussian data, which is what a trained network approximates (its predictions cancel where
the noise scheduler divides by a small number, so that errors of a table show as they would in pictures), and a bounded
function of its input whose predicted pictures reach far outside of [-1, 1], so that clipping shows.
"""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import numpy as np
import torch

from resynth_fast.bundle import StepTable
from resynth_fast.sampling import walk
from resynth_fast.types import Doubles, Floats

Model = Callable[[Doubles, int, float], Doubles]
"""(the model's input, number of the call, timestep) → the model's output, of the same shape."""

SHAPE = (4, 8, 8)


class _Doubled:
    """The module `torch` with float64 in place of float32, for noise schedulers that convert samples to float32."""

    float32 = torch.float64

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


@contextmanager
def drawing(scheduler: Any, draw: Callable[[tuple[int, ...]], torch.Tensor], dtype: torch.dtype = torch.float32) -> Iterator[None]:
    """Make `scheduler` take its noise from `draw(shape)` while open; only schedulers of the same module are affected.

    With `dtype` float64, its steps also keep samples in float64, where they would convert them to float32.
    """

    def randn_tensor(shape: tuple[int, ...], *_: Any, dtype: torch.dtype | None = None, **__: Any) -> torch.Tensor:
        return draw(tuple(shape)).to(dtype or torch.float32)

    doubled = _Doubled() if dtype == torch.float64 else torch
    modules = {sys.modules[cls.__module__] for cls in type(scheduler).__mro__ if cls.__module__.startswith("diffusers.")}
    with ExitStack() as stack:
        for module in modules:
            if hasattr(module, "randn_tensor"):
                stack.enter_context(mock.patch.object(module, "randn_tensor", randn_tensor))
            if hasattr(module, "torch"):
                stack.enter_context(mock.patch.object(module, "torch", doubled))
        yield


def scaled(scheduler: Any, sample: torch.Tensor, timestep: Any) -> torch.Tensor:
    """The model's input for `sample`."""
    found: torch.Tensor = scheduler.scale_model_input(sample.clone(), timestep) if hasattr(scheduler, "scale_model_input") else sample
    return found


def step(scheduler: Any, output: torch.Tensor, timestep: Any, sample: torch.Tensor) -> torch.Tensor:
    """The next sample. Pipelines pass an `eta` of 0, also where the scheduler's own default is another (TCD: 0.3)."""
    known = inspect.signature(scheduler.step).parameters
    extra = {key: value for key, value in {"generator": None, "eta": 0.0}.items() if key in known}
    found: torch.Tensor = scheduler.step(output, timestep, sample, **extra).prev_sample
    return found


def own_walk(scheduler: Any, model: Model, noises: Doubles, dtype: torch.dtype) -> list[Doubles]:
    """The loop of diffusers' pipelines in `dtype`: the model's inputs, then the result, of the shape of one call's noise.

    `scheduler` has its timesteps set. `noises` (1 + calls, …) are numbered as the runtime does, by model call; where a
    scheduler draws again within a call, it gets other values.
    """
    call, drawn, found = 0, 0, []
    sample = torch.from_numpy(noises[0]).to(dtype) * float(getattr(scheduler, "init_noise_sigma", 1.0))

    def draw(_: tuple[int, ...]) -> torch.Tensor:
        nonlocal drawn
        drawn += 1
        return torch.from_numpy(np.roll(noises[call], drawn - 1)).to(dtype)

    with drawing(scheduler, draw, dtype):
        for timestep in scheduler.timesteps:
            call, drawn = call + 1, 0
            found.append(scaled(scheduler, sample, timestep).double().numpy())
            output = torch.from_numpy(model(found[-1], call, float(timestep))).to(dtype)
            sample = step(scheduler, output, timestep, sample).to(dtype)
    return [*found, sample.double().numpy()]


def table_walk(table: StepTable, model: Model, noises: Doubles) -> list[Doubles]:
    """The runtime's walk of `table`, as `own_walk`."""
    found: list[Doubles] = []

    def denoise(latents: Floats, timestep: float) -> Floats:
        found.append(latents.astype(np.float64))
        return model(found[-1], len(found), timestep).astype(np.float32)

    result = walk(table, lambda call: noises[call].astype(np.float32), denoise)
    return [*found, result.astype(np.float64)]


def difference(walked: list[Doubles], expected: list[Doubles]) -> float:
    """Largest difference at any call, relative to the largest value at that call; infinite where a value is not finite.

    Rows, which are walks under different models, are compared for themselves.
    """
    worst = 0.0
    for found, wanted in zip(walked, expected, strict=True):
        for mine, theirs in zip(found, wanted, strict=True):
            error = float(np.abs(mine - theirs).max() / max(float(np.abs(theirs).max()), 1e-9))
            worst = max(worst, error if np.isfinite(error) else np.inf)
    return worst


def models(scheduler: Any, calls: int) -> tuple[Model, int]:
    """Both models as one, a row each, and the number of rows; a scheduler without a known ideal denoiser gets the other alone."""
    both = [model for model in (bounded(calls), ideal(scheduler)) if model is not None]

    def model(latents: Doubles, call: int, timestep: float) -> Doubles:
        return np.concatenate([of(row[None], call, timestep) for of, row in zip(both, latents, strict=True)])

    return model, len(both)


def bounded(calls: int) -> Model:
    """A model that is neither linear nor the same at every call."""
    drifts = np.random.default_rng(1).standard_normal((calls, 1, *SHAPE))
    return lambda latents, call, _: np.tanh(latents) + drifts[call - 1]


def ideal(scheduler: Any) -> Model | None:
    """The ideal denoiser of Gaussian data; None for a scheduler whose model predicts in terms that are not known here.

    Every element of the data has a mean and a deviation of its own, from .1 to 2. Under x = α·data + σ·noise the mean of
    the data given x is linear in x (Karras et al. 2022, arXiv 2206.00364, appendix B.3).
    """
    rng = np.random.default_rng(2)
    mean, deviation = rng.uniform(-1, 1, SHAPE), np.geomspace(0.1, 2, math.prod(SHAPE)).reshape(SHAPE)
    levels, kind, of_data = _levels(scheduler), _prediction(scheduler), _data_deviation(scheduler)
    if levels is None or kind not in ("epsilon", "v_prediction", "sample", "flow_prediction"):
        return None

    def model(latents: Doubles, _: int, timestep: float) -> Doubles:
        alpha, sigma = levels(timestep)
        noisy = latents * math.hypot(sigma, of_data) if of_data else latents
        spread = alpha**2 * deviation**2 + sigma**2
        data = mean + deviation**2 * alpha / spread * (noisy - alpha * mean)
        if of_data:
            # The network's output as EDM preconditions it (ibid., table 1).
            total = sigma**2 + of_data**2
            return (data - noisy * of_data**2 / total) * total**0.5 / (sigma * of_data) * (1 if kind == "epsilon" else -1)
        noise = sigma / spread * (noisy - alpha * mean)  # (noisy − α·data) / σ cancels where σ is small
        return {"epsilon": noise, "v_prediction": alpha * noise - sigma * data, "sample": data, "flow_prediction": noise - data}[kind]

    return model


def _prediction(scheduler: Any) -> str:
    flow = "FlowMatch" in type(scheduler).__name__ or scheduler.config.get("use_flow_sigmas")
    return "flow_prediction" if flow else str(scheduler.config.get("prediction_type", "epsilon"))


def _data_deviation(scheduler: Any) -> float:
    """The deviation of the data that EDM's preconditioning assumes; 0 for other schedulers."""
    return float(scheduler.config["sigma_data"]) if hasattr(scheduler, "precondition_outputs") else 0.0


def _levels(scheduler: Any) -> Callable[[float], tuple[float, float]] | None:
    """Timestep → (α, σ) of the model's input."""
    if _prediction(scheduler) == "flow_prediction":
        total = float(scheduler.config.get("num_train_timesteps", 1000))
        return lambda timestep: (1 - timestep / total, timestep / total)
    if _data_deviation(scheduler):
        return lambda timestep: (1.0, math.exp(4 * timestep))
    if not hasattr(scheduler, "alphas_cumprod"):
        return None
    alphas = np.asarray(scheduler.alphas_cumprod, np.float64)

    def levels(timestep: float) -> tuple[float, float]:
        share = float(np.interp(timestep, np.arange(len(alphas)), alphas))
        return share**0.5, (1 - share) ** 0.5

    return levels
