"""A step table walks as the noise scheduler does that it was read off; what has no table is refused by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from resynth_fast.bundle import StepRow, StepTable  # noqa: E402
from resynth_fast.errors import ConfigError  # noqa: E402
from resynth_fast.export.step_table import NotLinear, drawing, step_table  # noqa: E402
from resynth_fast.sampling import walk  # noqa: E402

# KDPM2 hands tensors to NumPy in a way that NumPy will drop.
pytestmark = pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")

NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0}
SHAPE = (2, 4, 8, 8)

SCHEDULERS: dict[str, tuple[str, dict[str, Any]]] = {
    "Euler": ("EulerDiscreteScheduler", NOISE),
    "Euler, Karras, v": ("EulerDiscreteScheduler", {**NOISE, "use_karras_sigmas": True, "prediction_type": "v_prediction"}),
    "Euler ancestral": ("EulerAncestralDiscreteScheduler", NOISE),
    "DDIM": ("DDIMScheduler", {**NOISE, "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}),
    "DDPM": ("DDPMScheduler", {**NOISE, "clip_sample": False}),
    "DPM++ 1": ("DPMSolverMultistepScheduler", {**NOISE, "solver_order": 1}),
    "DPM++ 2M": ("DPMSolverMultistepScheduler", NOISE),
    "DPM++ 2M, v": ("DPMSolverMultistepScheduler", {**NOISE, "prediction_type": "v_prediction"}),
    "DPM++ 2M, SDE": ("DPMSolverMultistepScheduler", {**NOISE, "algorithm_type": "sde-dpmsolver++"}),
    "DPM++ 2M, flow": ("DPMSolverMultistepScheduler", FLOW),
    "DPM++ 3M": ("DPMSolverMultistepScheduler", {**NOISE, "solver_order": 3}),
    "DPM++ singlestep": ("DPMSolverSinglestepScheduler", NOISE),
    "LCM": ("LCMScheduler", {**NOISE, "clip_sample": False}),
    "flow Euler": ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}),
    "flow Heun": ("FlowMatchHeunDiscreteScheduler", {}),
    "UniPC": ("UniPCMultistepScheduler", NOISE),
    "DEIS": ("DEISMultistepScheduler", NOISE),
    "PNDM as in Stable Diffusion 1": ("PNDMScheduler", {**NOISE, "skip_prk_steps": True, "steps_offset": 1}),
    "Heun": ("HeunDiscreteScheduler", NOISE),
    "KDPM2": ("KDPM2DiscreteScheduler", NOISE),
    "KDPM2 ancestral": ("KDPM2AncestralDiscreteScheduler", NOISE),
    "EDM Euler": ("EDMEulerScheduler", {}),
}


def make(name: str) -> Any:
    kind, settings = SCHEDULERS[name]
    return getattr(diffusers, kind)(**settings)


def read(table: dict[str, Any]) -> StepTable:
    rows = tuple(StepRow(r["timestep"], r["input_scale"], tuple(r["samples"]), tuple(r["outputs"]), r["noise"]) for r in table["rows"])
    return StepTable(table["noise_scheduler"], table["init_noise_sigma"], rows)


def denoise(latents: np.ndarray, timestep: float) -> np.ndarray:
    """A model that is neither linear nor the same at every step."""
    return np.tanh(np.roll(latents, 1, axis=1) + np.float32(np.sin(timestep)))


def noises() -> list[np.ndarray]:
    return list(np.random.default_rng(3).standard_normal((64, *SHAPE)).astype(np.float32))


def own_loop(scheduler: Any, steps: int, **arguments: Any) -> np.ndarray:
    """The loop of diffusers' pipelines; noise as the runtime numbers it, by model call."""
    scheduler.set_timesteps(**({"num_inference_steps": steps} | arguments))
    drawn, call = noises(), 0
    x = torch.from_numpy(drawn[0]) * float(getattr(scheduler, "init_noise_sigma", 1.0))
    with drawing(scheduler, lambda shape: torch.from_numpy(drawn[call])):
        for t in scheduler.timesteps:
            call += 1
            scaled = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
            x = scheduler.step(torch.from_numpy(denoise(scaled.float().numpy(), float(t))), t, x).prev_sample.float()
    return x.numpy()


@pytest.mark.parametrize("steps", [4, 8, 20])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_runtime_walks_as_the_noise_scheduler_does(name: str, steps: int) -> None:
    table = read(step_table(make(name), steps))
    expected, drawn = own_loop(make(name), steps), noises()
    found = walk(table, lambda call: drawn[call], denoise)
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize(
    ("scheduler", "named"),
    [
        (lambda: diffusers.DDIMScheduler(**NOISE), ["DDIMScheduler", "clip_sample=True", "choose another"]),
        (lambda: diffusers.DDPMScheduler(**NOISE), ["DDPMScheduler", "clip_sample=True"]),
        (
            lambda: diffusers.DPMSolverMultistepScheduler(**NOISE, thresholding=True, sample_max_value=1.0),
            ["DPMSolverMultistepScheduler", "thresholding=True"],
        ),
        (
            lambda: diffusers.DDPMScheduler(**NOISE, clip_sample=False, variance_type="learned_range"),
            ["DDPMScheduler", "variance_type=learned_range"],
        ),
        (lambda: diffusers.PNDMScheduler(**NOISE), ["PNDMScheduler"]),
    ],
)
def test_what_is_not_linear_is_refused_by_name(scheduler: Any, named: list[str]) -> None:
    with pytest.raises(NotLinear) as refused:
        step_table(scheduler(), 8)
    assert isinstance(refused.value, ConfigError)
    for part in named:
        assert part in str(refused.value)


def test_arguments_of_the_pipeline_reach_the_noise_scheduler() -> None:
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    levels = np.linspace(1.0, 1 / 4, 4)
    shifted, more = (step_table(scheduler, 4, sigmas=levels, mu=mu) for mu in (0.5, 1.15))
    assert [r["timestep"] for r in shifted["rows"]] != [r["timestep"] for r in more["rows"]]
    expected, drawn = own_loop(scheduler, 4, sigmas=levels, mu=0.5), noises()
    np.testing.assert_allclose(walk(read(shifted), lambda call: drawn[call], denoise), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_history_is_the_shortest_that_explains_the_walk() -> None:
    lengths = {name: [(len(r["samples"]), len(r["outputs"])) for r in step_table(make(name), 8)["rows"]] for name in ("Euler", "DPM++ 2M")}
    assert set(lengths["Euler"]) == {(1, 1)}
    assert max(lengths["DPM++ 2M"]) == (2, 2)


def test_reading_changes_neither_the_noise_scheduler_nor_anybodys_noise() -> None:
    from diffusers.schedulers import scheduling_euler_ancestral_discrete as module

    scheduler, before = make("Euler ancestral"), module.randn_tensor
    timesteps = scheduler.timesteps.clone()
    step_table(scheduler, 4)
    assert module.randn_tensor is before
    assert torch.equal(scheduler.timesteps, timesteps)
