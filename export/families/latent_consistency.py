"""Latent consistency models: Stable Diffusion's networks distilled to few steps. The U-Net embeds the guidance scale."""

from __future__ import annotations

from typing import Any

from resynth_fast.errors import ConfigError

from ..canonical import Guidance, embedded_scale
from . import Generator
from .stable_diffusion import generator

PIPELINE = "LatentConsistencyModelPipeline"


def canonical(pipeline: Any, guidance: Guidance) -> Generator:
    """See `families`. A step takes one denoiser row at any guidance scale."""
    family, embedded = "latent-consistency", embedded_scale(pipeline, guidance)
    if embedded is None:
        raise ConfigError(
            "this U-Net has no time_cond_proj_dim, so it takes no guidance scale; use a latent consistency model whose U-Net has it"
        )
    return generator(pipeline, family, guidance.embedded(family), embedded, guidance_scale=guidance.scale)
