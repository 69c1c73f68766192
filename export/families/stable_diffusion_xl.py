"""Stable Diffusion XL and Turbo: two CLIP encoders, and a U-Net that also takes the picture's size and a pooled text state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from resynth_fast.errors import ConfigError
from resynth_fast.types import Floats

from ..canonical import Decoder, Guidance, TextInput, UNet, embedded_scale, length_of, normals, side_of, timesteps, tokens
from ..graphs import Network, Tensors
from ..step_table import step_table
from ..weights import weights_sha256
from . import Generator

PIPELINE = "StableDiffusionXLPipeline"


class Text(torch.nn.Module):
    """`tokens_0`, `tokens_1` (b, l) → `cond_0` (b, l, d), both encoders' penultimate states; `cond_1` (b, p), the second's pooled state."""

    def __init__(self, first: torch.nn.Module, second: torch.nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, tokens_0: torch.Tensor, tokens_1: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        first, second = self.first(tokens_0, output_hidden_states=True), self.second(tokens_1, output_hidden_states=True)
        return torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1), second[0]


class Denoiser(UNet):
    """`UNet` with a further input `cond_1` (b, p), the pooled state. Sizes and crop are constants of the graph."""

    time_ids: torch.Tensor

    def __init__(self, unet: Any, guidance: torch.Tensor | None, resolution: int) -> None:
        super().__init__(unet, guidance)
        self.register_buffer("time_ids", torch.tensor([[resolution, resolution, 0, 0, resolution, resolution]]).float(), persistent=False)

    def forward(self, latents: torch.Tensor, timestep: torch.Tensor, cond_0: torch.Tensor, cond_1: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        batch = latents.shape[0]
        output: torch.Tensor = self.unet(
            latents,
            timestep,
            encoder_hidden_states=cond_0,
            return_dict=False,
            timestep_cond=None if self.guidance is None else self.guidance.expand(batch, -1),
            added_cond_kwargs={"text_embeds": cond_1, "time_ids": self.time_ids.expand(batch, -1)},
        )[0]
        return output


def canonical(pipeline: Any, guidance: Guidance) -> Generator:
    """See `families`. The unconditional row has zero states if the checkpoint says so, else those of the empty prompt."""
    pipeline.watermark = None  # which its pictures get where invisible-watermark is installed, and the denoiser does not make
    unet, vae, first, second = pipeline.unet, pipeline.vae, pipeline.text_encoder, pipeline.text_encoder_2
    if first is None or second is None or unet.config.addition_embed_type != "text_time":
        raise ConfigError(
            "this Stable Diffusion XL is no base model (two text encoders, addition_embed_type text_time); use the base model"
        )
    channels, side, width = unet.config.in_channels, side_of(unet), unet.config.cross_attention_dim
    inputs = tuple(TextInput(tokenizer=t, max_tokens=length_of(t)) for t in (pipeline.tokenizer, pipeline.tokenizer_2))
    length, pooled, resolution = inputs[0].max_tokens, second.config.projection_dim, side * pipeline.vae_scale_factor
    embedded, family = embedded_scale(pipeline, guidance), "stable-diffusion-xl"
    unconditional = "zeros" if pipeline.config.force_zeros_for_empty_prompt else "empty"
    mode = (
        guidance.embedded(family) if embedded is not None else guidance.classifier_free(family, rescales=True, unconditional=unconditional)
    )

    def denoiser_example(batch: int) -> Tensors:
        return {
            "latents": normals(batch, channels, side, side),
            "timestep": timesteps(batch),
            "cond_0": normals(batch, length, width),
            "cond_1": normals(batch, pooled),
        }

    def reference(prompts: Sequence[str], latents: Floats, steps: int) -> Floats:
        pictures: Floats = pipeline(
            list(prompts),
            latents=torch.from_numpy(latents),
            num_inference_steps=steps,
            output_type="np",
            guidance_scale=guidance.scale,
            guidance_rescale=guidance.rescale,
        ).images
        return pictures

    return Generator(
        family=family,
        networks={
            "text": Network(
                Text(first, second),
                lambda b: {f"tokens_{i}": tokens(entry.tokenizer, b, entry.max_tokens) for i, entry in enumerate(inputs)},
                ("cond_0", "cond_1"),
            ),
            "denoiser": Network(Denoiser(unet, embedded, resolution), denoiser_example, ("model_output",)),
            "decoder": Decoder(vae).network((channels, side, side)),
        },
        text_inputs=inputs,
        latents=(channels, side, side),
        resolution_px=(resolution, resolution),
        guidance=mode,
        lineage={"text_encoder": weights_sha256(first, second), "denoiser": weights_sha256(unet), "autoencoder": weights_sha256(vae)},
        scheduler=pipeline.scheduler,
        table=lambda steps: step_table(pipeline.scheduler, steps),
        reference=reference,
    )
