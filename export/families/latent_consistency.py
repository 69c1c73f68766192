"""Latent consistency models: Stable Diffusion's networks, distilled to few steps, the guidance scale told to the U-Net."""

from __future__ import annotations

from typing import Any

from ..canonical import Guidance, embedded_scale
from . import Generator
from .stable_diffusion import generator

PIPELINE = "LatentConsistencyModelPipeline"


def canonical(pipeline: Any, guidance: Guidance) -> Generator:
    """See `families`; one denoiser row at any guidance scale."""
    family = "latent-consistency"
    return generator(pipeline, family, guidance.embedded(family), embedded_scale(pipeline, guidance), guidance_scale=guidance.scale)
