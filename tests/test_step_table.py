"""A step table walks as the noise scheduler that it was read from; a scheduler without a table is refused by name."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from resynth_fast.bundle import StepTable  # noqa: E402
from resynth_fast.errors import ConfigError  # noqa: E402
from resynth_fast.export import checkpoints, replay  # noqa: E402
from resynth_fast.export.noise_schedulers import STEPS, Variant, schedulers, survey, variants  # noqa: E402
from resynth_fast.export.published import PUBLISHED  # noqa: E402
from resynth_fast.export.replay import drawing  # noqa: E402
from resynth_fast.export.step_table import NotLinear, step_table  # noqa: E402
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


def denoise(latents: np.ndarray, timestep: float) -> np.ndarray:
    """A model that is neither linear nor the same at every step."""
    return np.tanh(np.roll(latents, 1, axis=1) + np.float32(np.sin(timestep)))


def noises(shape: tuple[int, ...] = SHAPE) -> list[np.ndarray]:
    return list(np.random.default_rng(3).standard_normal((128, *shape)).astype(np.float32))


def own_loop(
    scheduler: Any, steps: int, model: Any = denoise, drawn: Any = None, dtype: Any = torch.float32, **arguments: Any
) -> np.ndarray:
    """The loop of diffusers' pipelines; noise as the runtime numbers it, by model call."""
    scheduler.set_timesteps(**({"num_inference_steps": steps} | arguments))
    drawn, call = drawn or noises(), 0
    # Pipelines pass an eta of 0, also where the scheduler's own default is another.
    eta = {"eta": 0.0} if "eta" in inspect.signature(scheduler.step).parameters else {}
    x = torch.from_numpy(drawn[0]).to(dtype) * float(getattr(scheduler, "init_noise_sigma", 1.0))
    with drawing(scheduler, lambda shape: torch.from_numpy(drawn[call]).to(dtype)):
        for t in scheduler.timesteps:
            call += 1
            scaled = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
            x = scheduler.step(torch.from_numpy(model(scaled.to(dtype).numpy(), float(t))).to(dtype), t, x, **eta).prev_sample.to(dtype)
    return x.numpy()


@pytest.mark.parametrize("steps", [4, 8, 20])
@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_runtime_walks_as_the_noise_scheduler_does(name: str, steps: int) -> None:
    table = StepTable.read(step_table(make(name), steps))
    expected, drawn = own_loop(make(name), steps), noises()
    found = walk(table, lambda call: drawn[call], denoise)
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


SIGMAS = ({"use_karras_sigmas": True}, {"use_exponential_sigmas": True}, {"use_beta_sigmas": True})
SPACINGS = ({"timestep_spacing": "leading", "steps_offset": 1}, {"timestep_spacing": "trailing"})
V = {"prediction_type": "v_prediction"}
ZERO_SNR = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", **V}
FLOWS = (
    {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0},
    {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "use_dynamic_shifting": True},
)
SHIFTS = ({"shift": 3.0}, {"use_dynamic_shifting": True}, {"use_dynamic_shifting": True, "time_shift_type": "linear"})

# What no refusal may reach: the samplers that text-to-image checkpoints come with, and their usual options.
REQUIRED: dict[str, tuple[dict[str, Any], ...]] = {
    "EulerDiscreteScheduler": ({}, *SIGMAS, *SPACINGS, V, ZERO_SNR),
    "EulerAncestralDiscreteScheduler": ({}, *SPACINGS, V, ZERO_SNR),
    "DDIMScheduler": ({}, *SPACINGS, V, ZERO_SNR, {"set_alpha_to_one": False, "steps_offset": 1}),
    "DDPMScheduler": ({}, *SPACINGS, V, ZERO_SNR),
    "DPMSolverMultistepScheduler": (
        {},
        *SIGMAS,
        {"use_lu_lambdas": True},
        *SPACINGS,
        V,
        ZERO_SNR,
        *FLOWS,
        {"solver_order": 1},
        {"solver_order": 3},
        {"algorithm_type": "sde-dpmsolver++"},
    ),
    "DPMSolverSinglestepScheduler": ({}, *SIGMAS, V, *FLOWS),
    "DEISMultistepScheduler": ({}, *SIGMAS, *SPACINGS, V),
    "UniPCMultistepScheduler": ({}, *SIGMAS, *SPACINGS, V, ZERO_SNR, *FLOWS),
    "SASolverScheduler": ({}, *SIGMAS, V),
    "HeunDiscreteScheduler": ({}, *SIGMAS, *SPACINGS, V),
    "KDPM2DiscreteScheduler": ({}, *SIGMAS, V),
    "KDPM2AncestralDiscreteScheduler": ({}, *SIGMAS, V),
    "LMSDiscreteScheduler": ({}, {"use_karras_sigmas": True}),
    "LCMScheduler": ({}, V, ZERO_SNR),
    "TCDScheduler": ({}, V, ZERO_SNR),
    "PNDMScheduler": ({"skip_prk_steps": True, "steps_offset": 1},),
    "FlowMatchEulerDiscreteScheduler": ({}, *SHIFTS, *SIGMAS, {"shift_terminal": 0.1}, {"stochastic_sampling": True}),
    "FlowMatchHeunDiscreteScheduler": ({}, {"shift": 3.0}),
    "FlowMatchLCMScheduler": ({}, *SHIFTS),
    "EDMEulerScheduler": ({}, {"sigma_schedule": "exponential"}),
    "EDMDPMSolverMultistepScheduler": ({},),
    "CMStochasticIterativeScheduler": ({},),
    "UnCLIPScheduler": ({},),
    "IPNDMScheduler": ({},),
}


@pytest.mark.parametrize("name", schedulers())
def test_every_scheduler_and_option_walks_as_diffusers_does_or_is_refused(name: str) -> None:
    """At most 1e-5 beside diffusers in float64, or a few times what its own loop loses in float32 (zero-terminal SNR)."""
    walked = []
    for variant in variants(name):
        try:
            with checkpoints.quiet(), np.errstate(all="ignore"):
                scheduler = variant.make()
                arguments = variant.arguments(scheduler)
                tables = {steps: StepTable.read(step_table(scheduler, steps, **arguments)) for steps in STEPS}
        except Exception:  # diffusers' own refusals share no class
            continue
        for steps, table in tables.items():
            drawn = noises()
            with checkpoints.quiet():
                expected = own_loop(variant.make(), steps, dtype=torch.float64, **arguments)
                found = walk(table, lambda call: drawn[call], denoise)  # noqa: B023
                if (error := np.abs(found - expected).max()) > 1e-5 * np.abs(expected).max():
                    rounded = np.abs(own_loop(variant.make(), steps, **arguments) - expected).max()
                    assert error <= 8 * rounded <= 8e-3 * np.abs(expected).max(), f"{variant} at {steps} steps"
        walked.append(variant)
    missing = [settings for settings in REQUIRED.get(name, ()) if Variant(name, tuple(settings.items())) not in walked]
    assert not missing, f"{name} is refused with {missing}"


def test_every_required_scheduler_exists() -> None:
    assert set(REQUIRED) <= set(schedulers())


def test_the_survey_lists_refused_schedulers_with_the_reason() -> None:
    rows = {row["name"]: row for row in survey()}
    assert set(rows) == set(schedulers())
    assert rows["EulerDiscreteScheduler"] == {"name": "EulerDiscreteScheduler", "exportable": True, "reason": None}
    assert not rows["PNDMScheduler"]["exportable"]  # with Runge-Kutta steps before, as it comes
    assert "a replayed walk differs" in rows["PNDMScheduler"]["reason"]
    assert all((row["reason"] is None) == row["exportable"] for row in rows.values())


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
def test_a_scheduler_that_is_not_linear_is_refused_by_name(scheduler: Any, named: list[str]) -> None:
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
    np.testing.assert_allclose(
        walk(StepTable.read(shifted), lambda call: drawn[call], denoise), expected, rtol=0, atol=1e-5 * np.abs(expected).max()
    )


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_configurations_walk_as_diffusers_does_in_double_precision(name: str) -> None:
    """Under an ideal denoiser, at the fewest and at the pipelines' own number of steps: at most 1e-3 beside diffusers, and
    1e-5 where its own loop in float32 is not further away."""
    published = PUBLISHED[name]
    for steps in (4, 50):
        arguments, scheduler = published.arguments(steps), published.make()
        given = {"num_inference_steps": None, **arguments} if published.flux else {}
        ideal, drawn = replay.ideal(scheduler), noises(replay.SHAPE)
        with checkpoints.quiet():
            table = StepTable.read(step_table(scheduler, steps, **arguments))
            double, single = (
                own_loop(published.make(), steps, lambda x, t: ideal(x.astype(np.float64), 0, t), drawn, dtype, **given)  # noqa: B023
                for dtype in (torch.float64, torch.float32)
            )
        found = walk(table, lambda call: drawn[call], lambda x, t: ideal(x.astype(np.float64), 0, t).astype(np.float32))  # noqa: B023
        error, rounded = (np.abs(x - double).max() / np.abs(double).max() for x in (found, single))
        assert error <= 1e-3
        assert error <= max(1e-5, 8 * rounded), f"{name} at {steps} steps"


def test_ideal_denoisers_of_every_prediction_walk_to_the_same_data() -> None:
    """In all terms that a network may predict in, the same start leads to the same latents, up to the error of 50 steps."""
    names = ("SDXL, Euler", "SD 2.1, DDIM, v", "SD 3, Euler", "Playground 2.5, EDM Euler", "SDXL, DPM++ 2M")
    found = []
    for name in names:
        published, drawn = PUBLISHED[name], noises(replay.SHAPE)
        ideal = replay.ideal(published.make())
        assert ideal is not None
        found.append(own_loop(published.make(), 50, lambda x, t: ideal(x.astype(np.float64), 0, t), drawn))  # noqa: B023
    for name, one in zip(names, found, strict=True):
        assert np.abs(one - found[0]).max() <= 0.1 * np.abs(found[0]).max(), name


def test_pipelines_pass_tcd_an_eta_of_zero() -> None:
    """The scheduler's own default is .3; stochastic steps would need noise."""
    table = step_table(diffusers.TCDScheduler(**NOISE), 8)
    assert [row["noise"] for row in table["rows"]] == [0.0] * 8


def test_history_is_the_shortest_of_the_best() -> None:
    def lengths(name: str, steps: int) -> list[tuple[int, int]]:
        return [(len(r["samples"]), len(r["outputs"])) for r in step_table(make(name), steps)["rows"]]

    assert set(lengths("Euler", 8)) == {(1, 1)}
    assert max(lengths("DPM++ 2M", 8)) == (2, 2)
    # Late in 50 steps, one sample and three outputs fit within 3e-6, which would not be enough.
    assert set(lengths("DPM++ 2M", 50)[3:-1]) == {(2, 2)}


@pytest.mark.parametrize(
    ("scheduler", "steps", "named"),
    [
        (lambda: diffusers.EulerDiscreteScheduler(**NOISE), 1001, "1001 steps are more than the 1000 noise levels that EulerDiscrete"),
        (lambda: diffusers.LCMScheduler(**NOISE, clip_sample=False), 60, r"LCMScheduler cannot take 60 steps.*--steps"),
    ],
)
def test_numbers_of_steps_that_a_scheduler_cannot_take_are_refused(scheduler: Any, steps: int, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        step_table(scheduler(), steps)


def test_reading_a_step_table_changes_neither_the_scheduler_nor_global_noise() -> None:
    from diffusers.schedulers import scheduling_euler_ancestral_discrete as module

    scheduler, before = make("Euler ancestral"), module.randn_tensor
    timesteps = scheduler.timesteps.clone()
    step_table(scheduler, 4)
    assert module.randn_tensor is before
    assert torch.equal(scheduler.timesteps, timesteps)
