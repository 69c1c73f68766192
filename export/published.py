"""Noise schedulers as published text-to-image checkpoints configure them: what a step table has to be right for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import diffusers
import numpy as np

STEPS = (4, 8, 20, 28, 50)
FLUX_MU = 1.15  # of FLUX's pipeline at 1024 px

_SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
_LEADING = {"timestep_spacing": "leading", "steps_offset": 1}
_TRAILING = {"timestep_spacing": "trailing", "steps_offset": 1}
_V = {"prediction_type": "v_prediction"}
_ZERO_SNR = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
_PIXART = {"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear"}
_FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction", "flow_shift": 3.0}
_DDIM = {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}


@dataclass(frozen=True)
class Published:
    """A noise scheduler of diffusers with a published configuration."""

    scheduler: str
    config: dict[str, Any] = field(default_factory=dict)
    flux: bool = False
    """the pipeline passes noise levels and a shift, as FLUX's does"""

    def make(self) -> Any:
        """The scheduler (diffusers)."""
        return getattr(diffusers, self.scheduler)(**self.config)

    def arguments(self, steps: int) -> dict[str, Any]:
        """What the pipeline passes to `set_timesteps` beside the number of steps."""
        return {"sigmas": np.linspace(1.0, 1 / steps, steps), "mu": FLUX_MU} if self.flux else {}


PUBLISHED = {
    "SD 1.5, PNDM": Published("PNDMScheduler", {**_SD, "skip_prk_steps": True, "set_alpha_to_one": False, "steps_offset": 1}),
    "SD 1.5, DDIM": Published("DDIMScheduler", {**_SD, **_DDIM}),
    "SD 1.5, DPM++ 2M": Published("DPMSolverMultistepScheduler", {**_SD, "steps_offset": 1}),
    "SD 1.5, DPM++ 2M Karras": Published("DPMSolverMultistepScheduler", {**_SD, "steps_offset": 1, "use_karras_sigmas": True}),
    "SD 1.5, DPM++ SDE Karras": Published(
        "DPMSolverMultistepScheduler", {**_SD, "steps_offset": 1, "use_karras_sigmas": True, "algorithm_type": "sde-dpmsolver++"}
    ),
    "SD 1.5, DEIS": Published("DEISMultistepScheduler", {**_SD, "steps_offset": 1}),
    "SD 1.5, UniPC": Published("UniPCMultistepScheduler", {**_SD, "steps_offset": 1}),
    "SD 1.5, LCM": Published("LCMScheduler", {**_SD, "clip_sample": False, "steps_offset": 1}),
    "SD 1.5, TCD": Published("TCDScheduler", {**_SD, "steps_offset": 1}),
    "SD 2.1, DDIM, v": Published("DDIMScheduler", {**_SD, **_V, **_DDIM}),
    "SD 2.1, DPM++ 2M, v": Published("DPMSolverMultistepScheduler", {**_SD, **_V, "steps_offset": 1}),
    "SD 2.1, UniPC, v": Published("UniPCMultistepScheduler", {**_SD, **_V, "steps_offset": 1}),
    "SD 2.1, DEIS, v": Published("DEISMultistepScheduler", {**_SD, **_V, "steps_offset": 1}),
    "SD-Turbo, Euler": Published("EulerDiscreteScheduler", {**_SD, **_TRAILING}),
    "SDXL, Euler": Published("EulerDiscreteScheduler", {**_SD, **_LEADING}),
    "SDXL, DPM++ 2M": Published("DPMSolverMultistepScheduler", {**_SD, **_LEADING}),
    "SDXL, DPM++ 2M Karras": Published("DPMSolverMultistepScheduler", {**_SD, **_LEADING, "use_karras_sigmas": True}),
    "SDXL, UniPC": Published("UniPCMultistepScheduler", {**_SD, **_LEADING}),
    "SDXL, TCD": Published("TCDScheduler", {**_SD, **_LEADING}),
    "SDXL, DDIM, v, zero SNR": Published("DDIMScheduler", {**_SD, **_V, **_ZERO_SNR, "clip_sample": False}),
    "SDXL-Turbo, Euler ancestral": Published("EulerAncestralDiscreteScheduler", {**_SD, **_TRAILING}),
    "Animagine XL, Euler ancestral": Published("EulerAncestralDiscreteScheduler", {**_SD, **_LEADING}),
    "NoobAI, Euler, v, zero SNR": Published("EulerDiscreteScheduler", {**_SD, **_V, **_LEADING, "rescale_betas_zero_snr": True}),
    "NoobAI, DPM++ 2M, v, zero SNR": Published("DPMSolverMultistepScheduler", {**_SD, **_V, **_ZERO_SNR}),
    "NoobAI, UniPC, v, zero SNR": Published("UniPCMultistepScheduler", {**_SD, **_V, **_ZERO_SNR}),
    "ε, zero SNR, DPM++ 2M": Published("DPMSolverMultistepScheduler", {**_SD, **_ZERO_SNR}),
    "ε, zero SNR, UniPC": Published("UniPCMultistepScheduler", {**_SD, **_ZERO_SNR}),
    "ε, zero SNR, Euler": Published("EulerDiscreteScheduler", {**_SD, **_ZERO_SNR}),
    "Playground 2.5, EDM DPM++ 2M": Published("EDMDPMSolverMultistepScheduler", {"sigma_max": 80.0, "sigma_data": 0.5}),
    "Playground 2.5, EDM Euler": Published("EDMEulerScheduler", {"sigma_max": 80.0, "sigma_data": 0.5}),
    "SD 3, Euler": Published("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}),
    "SD 3, UniPC": Published("UniPCMultistepScheduler", _FLOW),
    "SD 3, Heun": Published("FlowMatchHeunDiscreteScheduler", {"shift": 3.0}),
    "FLUX.1-dev, Euler": Published(
        "FlowMatchEulerDiscreteScheduler", {"shift": 3.0, "use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15}, flux=True
    ),
    "FLUX.1-schnell, Euler": Published("FlowMatchEulerDiscreteScheduler", {"shift": 1.0}, flux=True),
    "PixArt-Σ, DPM++ 2M": Published("DPMSolverMultistepScheduler", _PIXART),
    "Sana, DPM++ 2M": Published("DPMSolverMultistepScheduler", {**_SD, **_FLOW}),
}
"""name → configuration, and the usual swaps of the noise scheduler"""
