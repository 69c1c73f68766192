"""Stable Diffusion 3 and 3.5: two CLIP encoders, an optional T5 encoder, and a flow-matching transformer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers.pipelines.stable_diffusion_3.pipeline_stable_diffusion_3 import calculate_shift

from resynth_fast.errors import ConfigError
from resynth_fast.types import Floats

from ..canonical import Decoder, Guidance, TextInput, normals, side_of, timesteps, tokens
from ..graphs import Network, Tensors
from ..step_table import step_table
from ..weights import weights_sha256
from . import Generator

PIPELINE = "StableDiffusion3Pipeline"
MAX_T5_TOKENS = 256


class Text(torch.nn.Module):
    """`tokens_0`, `tokens_1` (b, l) for CLIP, `tokens_2` (b, m) for T5 → `cond_0` (b, l + m, d), `cond_1` (b, p), both pooled states.

    CLIP's states are padded with zeros to the width of T5's and come first. Without T5, its states are zero.
    """

    def __init__(self, first: torch.nn.Module, second: torch.nn.Module, third: torch.nn.Module | None, width: int, length: int) -> None:
        super().__init__()
        self.first, self.second, self.third = first, second, third
        self.width, self.length = width, length

    def forward(
        self, tokens_0: torch.Tensor, tokens_1: torch.Tensor, tokens_2: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        first, second = self.first(tokens_0, output_hidden_states=True), self.second(tokens_1, output_hidden_states=True)
        clip = torch.cat([first.hidden_states[-2], second.hidden_states[-2]], dim=-1)
        clip = torch.nn.functional.pad(clip, (0, self.width - clip.shape[-1]))
        t5 = clip.new_zeros(1, self.length, self.width).expand(clip.shape[0], -1, -1) if self.third is None else self.third(tokens_2)[0]
        return torch.cat([clip, t5], dim=-2), torch.cat([first[0], second[0]], dim=-1)


class Denoiser(torch.nn.Module):
    """`latents` (b, c, h, w), `timestep` (b,), `cond_0` (b, l, d), `cond_1` (b, p) → `model_output` (b, c, h, w)."""

    def __init__(self, transformer: torch.nn.Module) -> None:
        super().__init__()
        self.transformer = transformer

    def forward(self, latents: torch.Tensor, timestep: torch.Tensor, cond_0: torch.Tensor, cond_1: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.transformer(
            hidden_states=latents, timestep=timestep, encoder_hidden_states=cond_0, pooled_projections=cond_1, return_dict=False
        )[0]
        return output


def canonical(pipeline: Any, guidance: Guidance) -> Generator:
    """See `families`. The step table contains the shift, which depends on the resolution."""
    transformer, vae = pipeline.transformer, pipeline.vae
    first, second, third = pipeline.text_encoder, pipeline.text_encoder_2, pipeline.text_encoder_3
    if first is None or second is None:
        raise ConfigError("this Stable Diffusion 3 lacks a CLIP encoder; use a checkpoint with text_encoder and text_encoder_2")
    length = int(pipeline.tokenizer_max_length)
    t5_length = MAX_T5_TOKENS if third is None else min(MAX_T5_TOKENS, int(pipeline.tokenizer_3.model_max_length))
    inputs = tuple(TextInput(tokenizer=t, max_tokens=length) for t in (pipeline.tokenizer, pipeline.tokenizer_2))
    inputs = inputs if third is None else (*inputs, TextInput(tokenizer=pipeline.tokenizer_3, max_tokens=t5_length))
    config = transformer.config
    channels, side, width, pooled = config.in_channels, side_of(transformer), config.joint_attention_dim, config.pooled_projection_dim
    resolution = side * pipeline.vae_scale_factor

    def denoiser_example(batch: int) -> Tensors:
        return {
            "latents": normals(batch, channels, side, side),
            "timestep": timesteps(batch),
            "cond_0": normals(batch, length + t5_length, width),
            "cond_1": normals(batch, pooled),
        }

    def table(steps: int) -> dict[str, Any]:
        """A step table with the shift that the pipeline passes."""
        settings = pipeline.scheduler.config
        if not settings.get("use_dynamic_shifting"):
            return step_table(pipeline.scheduler, steps)
        keys = {"base_image_seq_len": 256, "max_image_seq_len": 4096, "base_shift": 0.5, "max_shift": 1.16}
        mu = calculate_shift((side // config.patch_size) ** 2, *(settings.get(key, default) for key, default in keys.items()))
        return step_table(pipeline.scheduler, steps, mu=mu)

    def reference(prompts: Sequence[str], latents: Floats, steps: int) -> Floats:
        pictures: Floats = pipeline(
            list(prompts),
            latents=torch.from_numpy(latents),
            num_inference_steps=steps,
            guidance_scale=guidance.scale,
            output_type="np",
            max_sequence_length=t5_length,
        ).images
        return pictures

    return Generator(
        family="stable-diffusion-3",
        networks={
            "text": Network(
                Text(first, second, third, width, t5_length),
                lambda b: {f"tokens_{i}": tokens(entry.tokenizer, b, entry.max_tokens) for i, entry in enumerate(inputs)},
                ("cond_0", "cond_1"),
            ),
            "denoiser": Network(Denoiser(transformer), denoiser_example, ("model_output",)),
            "decoder": Decoder(vae).network((channels, side, side)),
        },
        text_inputs=inputs,
        latents=(channels, side, side),
        resolution_px=(resolution, resolution),
        guidance=guidance.classifier_free("stable-diffusion-3"),
        lineage={
            "text_encoder": weights_sha256(*(encoder for encoder in (first, second, third) if encoder is not None)),
            "denoiser": weights_sha256(transformer),
            "autoencoder": weights_sha256(vae),
        },
        scheduler=pipeline.scheduler,
        table=table,
        reference=reference,
    )
