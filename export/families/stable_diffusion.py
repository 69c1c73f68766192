"""Stable Diffusion 1 and 2: a CLIP text encoder, a U-Net, an autoencoder. Step tables cover ε- and v-prediction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from resynth_fast.types import Floats

from ..canonical import Decoder, Guidance, TextInput, UNet, embedded_scale, length_of, normals, side_of, timesteps, tokens
from ..graphs import Network
from ..step_table import step_table
from ..weights import weights_sha256
from . import Generator

PIPELINE = "StableDiffusionPipeline"


class Text(torch.nn.Module):
    """`tokens_0` (b, l) int64 → `cond_0` (b, l, d), the last hidden state."""

    def __init__(self, encoder: torch.nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, tokens_0: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.encoder(tokens_0)[0]
        return hidden


def canonical(pipeline: Any, guidance: Guidance) -> Generator:
    """See `families`. Guidance above 1 takes a second denoiser row, with the empty prompt."""
    embedded = embedded_scale(pipeline, guidance)
    family = "stable-diffusion"
    mode = guidance.classifier_free(family, rescales=True) if embedded is None else guidance.embedded(family)
    rescale = {} if embedded is not None else {"guidance_rescale": guidance.rescale}
    return generator(pipeline, family, mode, embedded, guidance_scale=guidance.scale, **rescale)


def generator(pipeline: Any, family: str, mode: dict[str, Any], embedded: torch.Tensor | None, **arguments: float) -> Generator:
    """The canonical networks that Stable Diffusion and its distillations share. `arguments` are passed to diffusers' pipeline."""
    unet, vae, encoder, tokenizer = pipeline.unet, pipeline.vae, pipeline.text_encoder, pipeline.tokenizer
    channels, side, width = unet.config.in_channels, side_of(unet), unet.config.cross_attention_dim
    length, resolution = length_of(tokenizer), side * pipeline.vae_scale_factor

    def reference(prompts: Sequence[str], latents: Floats, steps: int) -> Floats:
        pictures: Floats = pipeline(
            list(prompts), latents=torch.from_numpy(latents), num_inference_steps=steps, output_type="np", **arguments
        ).images
        return pictures

    return Generator(
        family=family,
        networks={
            "text": Network(Text(encoder), lambda b: {"tokens_0": tokens(tokenizer, b, length)}, ("cond_0",)),
            "denoiser": Network(
                UNet(unet, embedded),
                lambda b: {"latents": normals(b, channels, side, side), "timestep": timesteps(b), "cond_0": normals(b, length, width)},
                ("model_output",),
            ),
            "decoder": Decoder(vae).network((channels, side, side)),
        },
        text_inputs=(TextInput(tokenizer=tokenizer, max_tokens=length),),
        latents=(channels, side, side),
        resolution_px=(resolution, resolution),
        guidance=mode,
        lineage={"text_encoder": weights_sha256(encoder), "denoiser": weights_sha256(unet), "autoencoder": weights_sha256(vae)},
        scheduler=pipeline.scheduler,
        table=lambda steps: step_table(pipeline.scheduler, steps),
        reference=reference,
    )
