"""PixArt-Σ: a T5 encoder whose padding is masked, and a diffusion transformer whose learned variance is dropped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from resynth_fast.errors import ConfigError
from resynth_fast.types import Floats

from ..canonical import (
    Decoder,
    Guidance,
    MaskedText,
    MaskedTransformer,
    TextInput,
    broadcast_masks,
    masks,
    normals,
    side_of,
    timesteps,
    tokens,
)
from ..graphs import Network, Tensors
from ..step_table import step_table
from ..weights import weights_sha256
from . import Generator

PIPELINE = "PixArtSigmaPipeline"
MAX_TOKENS = 300


def canonical(pipeline: Any, guidance: Guidance) -> Generator:
    """See `families`. Captions are stripped and lower-cased as in the pipeline, but markup is kept."""
    transformer, vae, encoder, tokenizer = pipeline.transformer, pipeline.vae, pipeline.text_encoder, pipeline.tokenizer
    if transformer.use_additional_conditions:
        raise ConfigError(
            "this PixArt takes the picture's size and aspect ratio (use_additional_conditions), as PixArt-α does; use a PixArt-Σ"
        )
    config, length = transformer.config, min(MAX_TOKENS, int(tokenizer.model_max_length))
    channels, side, width = config.in_channels, side_of(transformer), config.caption_channels
    resolution = side * pipeline.vae_scale_factor
    sizes = {"resolution": None, "aspect_ratio": None}

    def denoiser_example(batch: int) -> Tensors:
        return {
            "latents": normals(batch, channels, side, side),
            "timestep": timesteps(batch),
            "cond_0": normals(batch, length, width),
            "cond_1": masks(batch, length),
        }

    def reference(prompts: Sequence[str], latents: Floats, steps: int) -> Floats:
        pictures: Floats = pipeline(
            list(prompts),
            latents=torch.from_numpy(latents),
            num_inference_steps=steps,
            guidance_scale=guidance.scale,
            output_type="np",
            height=resolution,
            width=resolution,
            max_sequence_length=length,
            clean_caption=False,
            use_resolution_binning=False,
        ).images
        return pictures

    return Generator(
        family="pixart-sigma",
        networks={
            "text": Network(
                MaskedText(encoder, int(tokenizer.pad_token_id)), lambda b: {"tokens_0": tokens(tokenizer, b, length)}, ("cond_0", "cond_1")
            ),
            "denoiser": Network(
                MaskedTransformer(transformer, added_cond_kwargs=sizes), denoiser_example, ("model_output",), prepare=broadcast_masks
            ),
            "decoder": Decoder(vae).network((channels, side, side)),
        },
        text_inputs=(TextInput(tokenizer=tokenizer, max_tokens=length, lowercase=True),),
        latents=(channels, side, side),
        resolution_px=(resolution, resolution),
        guidance=guidance.classifier_free("pixart-sigma"),
        lineage={"text_encoder": weights_sha256(encoder), "denoiser": weights_sha256(transformer), "autoencoder": weights_sha256(vae)},
        scheduler=pipeline.scheduler,
        table=lambda steps: step_table(pipeline.scheduler, steps),
        reference=reference,
    )
