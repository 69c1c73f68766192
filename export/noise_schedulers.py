"""Which of diffusers' noise schedulers can become step tables, with which options: found by trying, not by a list.

Every scheduler is tried as it comes (clipping off, which no linear table can hold), and with one option changed at a
time; what cannot be built, walked or replayed is refused, with the reason.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import diffusers.schedulers
import numpy as np
from diffusers.schedulers.scheduling_utils import SchedulerMixin

from resynth_fast.errors import ConfigError

from . import checkpoints
from .step_table import step_table

STEPS = (4, 8, 20)
NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}  # Stable Diffusion's
MU = 0.9  # the value that a pipeline passes where the shift depends on the resolution

# One change for each variant; changes that need each other are one entry.
CHANGES: tuple[dict[str, Any], ...] = (
    {"use_karras_sigmas": True},
    {"use_exponential_sigmas": True},
    {"use_beta_sigmas": True},
    {"use_lu_lambdas": True},
    {"timestep_spacing": "linspace"},
    {"timestep_spacing": "leading", "steps_offset": 1},
    {"timestep_spacing": "trailing"},
    {"prediction_type": "v_prediction"},
    {"prediction_type": "sample"},
    {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "prediction_type": "v_prediction"},
    {"beta_schedule": "squaredcos_cap_v2"},
    {"set_alpha_to_one": False, "steps_offset": 1},
    {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0},
    {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "use_dynamic_shifting": True},
    {"shift": 3.0},
    {"use_dynamic_shifting": True},
    {"use_dynamic_shifting": True, "time_shift_type": "linear"},
    {"shift_terminal": 0.1},
    {"stochastic_sampling": True},
    {"solver_order": 1},
    {"solver_order": 3},
    {"solver_type": "heun"},
    {"solver_type": "bh1", "final_sigmas_type": "sigma_min"},
    {"predict_x0": False, "final_sigmas_type": "sigma_min"},
    {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"},
    {"algorithm_type": "sde-dpmsolver++"},
    {"algorithm_type": "noise_prediction"},
    {"final_sigmas_type": "sigma_min"},
    {"lower_order_final": False, "final_sigmas_type": "sigma_min"},
    {"euler_at_final": True},
    {"sigma_schedule": "exponential"},
    {"interpolation_type": "log_linear"},
    {"timestep_type": "continuous", "prediction_type": "v_prediction"},
    {"variance_type": "fixed_large"},
    {"variance_type": "learned_range"},
    {"skip_prk_steps": True, "steps_offset": 1},
    {"thresholding": True, "sample_max_value": 1.0},
    {"clip_sample": True},
)
UNCLIPPED = {"clip_sample": False, "clip_denoised": False}


@dataclass(frozen=True)
class Variant:
    """A noise scheduler with its settings. The defaults are those of Stable Diffusion, without clipping."""

    name: str
    changes: tuple[tuple[str, Any], ...] = ()

    def make(self) -> Any:
        """The scheduler (diffusers)."""
        cls = getattr(diffusers.schedulers, self.name)
        known = inspect.signature(cls.__init__).parameters
        settings = {**(NOISE if "beta_start" in known else {}), **UNCLIPPED}
        return cls(**{key: value for key, value in settings.items() if key in known} | dict(self.changes))

    def arguments(self, scheduler: Any) -> dict[str, Any]:
        """The arguments that a pipeline passes to `set_timesteps`."""
        return {"mu": MU} if scheduler.config.get("use_dynamic_shifting") else {}

    def __str__(self) -> str:
        return self.name + "".join(f", {key}={value}" for key, value in self.changes)


def schedulers() -> list[str]:
    """Every noise scheduler of the installed diffusers."""
    module = diffusers.schedulers
    found = {name: getattr(module, name) for name in dir(module)}
    return sorted(
        name for name, cls in found.items() if isinstance(cls, type) and issubclass(cls, SchedulerMixin) and cls is not SchedulerMixin
    )


def variants(name: str) -> Iterator[Variant]:
    """The scheduler with its defaults, then with one option changed at a time."""
    cls = getattr(diffusers.schedulers, name)
    yield Variant(name)
    defaults = {key: parameter.default for key, parameter in inspect.signature(cls.__init__).parameters.items()}
    for change in CHANGES:
        if change.keys() <= defaults.keys() and any(defaults[key] != value for key, value in change.items()):
            yield Variant(name, tuple(change.items()))


def refusal(variant: Variant, steps: Sequence[int] = STEPS) -> str | None:
    """Why there is no step table of `variant`; None if there is one for each number of `steps`."""
    try:
        with checkpoints.quiet(), np.errstate(all="ignore"):
            scheduler = variant.make()
            for n in steps:
                step_table(scheduler, n, **variant.arguments(scheduler))
    except ConfigError as error:
        return str(error)
    except Exception as error:  # a scheduler that cannot be made raises anything
        return f"{type(error).__name__}: {error}".splitlines()[0]
    return None


def survey() -> list[dict[str, Any]]:
    """Every noise scheduler with its defaults: name, whether it is exportable, and the reason if not."""
    rows = []
    for name in schedulers():
        reason = refusal(Variant(name), (4, 8))
        rows.append({"name": name, "exportable": reason is None, "reason": reason})
    return rows
