"""Sana: a Gemma encoder with an instruction before every caption, a linear-attention transformer, a deep-compression autoencoder."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch

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

PIPELINE = "SanaPipeline"
MAX_TOKENS = 300


def canonical(pipeline: Any, guidance: Guidance) -> Generator:
    """See `families`. The instruction is the pipeline's default; its states are dropped after the encoder."""
    transformer, vae, encoder, tokenizer = pipeline.transformer, pipeline.vae, pipeline.text_encoder, pipeline.tokenizer
    tokenizer.padding_side = "right"
    config, length = transformer.config, min(MAX_TOKENS, int(tokenizer.model_max_length))
    channels, side, width = config.in_channels, side_of(transformer), config.caption_channels
    resolution = side * pipeline.vae_scale_factor
    instruction = "\n".join(inspect.signature(pipeline.__call__).parameters["complex_human_instruction"].default)
    all_tokens = len(tokenizer.encode(instruction)) + length - 2  # the pipeline's own count

    def text_example(batch: int) -> Tensors:
        return {"tokens_0": tokens(tokenizer, batch, all_tokens, prefix=instruction)}

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
        family="sana",
        networks={
            "text": Network(MaskedText(encoder, int(tokenizer.pad_token_id), length), text_example, ("cond_0", "cond_1")),
            "denoiser": Network(
                MaskedTransformer(transformer, config.timestep_scale),
                denoiser_example,
                ("model_output",),
                prepare=broadcast_masks,
                optimize=False,
            ),
            "decoder": Decoder(vae).network((channels, side, side), optimize=False),
        },
        text_inputs=(TextInput(tokenizer=tokenizer, max_tokens=all_tokens, prefix=instruction, lowercase=True),),
        latents=(channels, side, side),
        resolution_px=(resolution, resolution),
        guidance=guidance.classifier_free("sana"),
        lineage={"text_encoder": weights_sha256(encoder), "denoiser": weights_sha256(transformer), "autoencoder": weights_sha256(vae)},
        scheduler=pipeline.scheduler,
        table=lambda steps: step_table(pipeline.scheduler, steps),
        reference=reference,
    )
