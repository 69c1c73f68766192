"""Stable Diffusion 1 and 2: a CLIP text encoder, a U-Net, an autoencoder; ε- or v-prediction is the step table's affair."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from resynth_fast.errors import ConfigError

from ..graphs import Network, weights_sha256
from ..step_table import step_table
from . import Decoder, Floats, Generator, normals, timesteps, tokens

PIPELINE = "StableDiffusionPipeline"

# Networks with these want inputs that the contract's denoiser has not got.
FOREIGN = ("class_embed_type", "addition_embed_type", "encoder_hid_dim", "time_cond_proj_dim")


class Text(torch.nn.Module):
    """`tokens_0` (b, l) int64 → `cond_0` (b, l, d), the last hidden state."""

    def __init__(self, encoder: torch.nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, tokens_0: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.encoder(tokens_0)[0]
        return hidden


class Denoiser(torch.nn.Module):
    """`latents` (b, c, h, w), `timestep` (b,), `cond_0` (b, l, d) → `model_output` (b, c, h, w)."""

    def __init__(self, unet: torch.nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, latents: torch.Tensor, timestep: torch.Tensor, cond_0: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.unet(latents, timestep, encoder_hidden_states=cond_0, return_dict=False)[0]
        return output


def canonical(pipeline: Any, guidance_scale: float) -> Generator:
    """See `families`; guidance above 1 asks the denoiser twice, once with the empty prompt."""
    unet, vae, encoder, tokenizer = pipeline.unet, pipeline.vae, pipeline.text_encoder, pipeline.tokenizer
    if foreign := [key for key in FOREIGN if unet.config.get(key) is not None]:
        raise ConfigError(f"the U-Net has {', '.join(foreign)}, which this family does not export; use a plain Stable Diffusion checkpoint")
    channels, side, width = unet.config.in_channels, unet.config.sample_size, unet.config.cross_attention_dim
    length = int(tokenizer.model_max_length)
    resolution = side * pipeline.vae_scale_factor

    def reference(prompts: Sequence[str], latents: Floats, steps: int) -> Floats:
        pictures: Floats = pipeline(
            list(prompts), latents=torch.from_numpy(latents), num_inference_steps=steps, guidance_scale=guidance_scale, output_type="np"
        ).images
        return pictures

    return Generator(
        family="stable-diffusion",
        networks={
            "text": Network(Text(encoder), lambda b: {"tokens_0": tokens(tokenizer, b, length)}, ("cond_0",)),
            "denoiser": Network(
                Denoiser(unet),
                lambda b: {"latents": normals(b, channels, side, side), "timestep": timesteps(b), "cond_0": normals(b, length, width)},
                ("model_output",),
            ),
            "decoder": Network(Decoder(vae), lambda b: {"latents": normals(b, channels, side, side)}, ("image",)),
        },
        tokenizers=((tokenizer, length),),
        latents=(channels, side, side),
        resolution_px=(resolution, resolution),
        guidance={"mode": "batch-2" if guidance_scale > 1 else "none", "scale": guidance_scale if guidance_scale > 1 else 1.0},
        lineage={"text_encoder": weights_sha256(encoder), "denoiser": weights_sha256(unet), "autoencoder": weights_sha256(vae)},
        scheduler=pipeline.scheduler,
        table=lambda steps: step_table(pipeline.scheduler, steps),
        reference=reference,
    )
