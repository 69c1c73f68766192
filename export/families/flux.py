"""FLUX: a flow-matching transformer on packed latents, with a CLIP encoder for the pooled state and a second encoder for the words.

Packing, position ids, the timestep's unit and the guidance embedding are part of the graph, so each resolution needs its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers.pipelines.flux.pipeline_flux import calculate_shift

from resynth_fast.types import Floats

from ..canonical import Decoder, Guidance, TextInput, normals, timesteps, tokens
from ..graphs import Network, Tensors
from ..step_table import step_table
from ..weights import weights_sha256
from . import Generator

PIPELINE = "FluxPipeline"
MAX_WORD_TOKENS = 512


class Text(torch.nn.Module):
    """`tokens_0` (b, l), `tokens_1` (b, m) → `cond_0` (b, l, d), the states of the words; `cond_1` (b, e), the pooled state.

    `tokens_0` gives the pooled state, `tokens_1` the words. Where one encoder does both, there is no `tokens_1`.
    """

    def __init__(self, summary: torch.nn.Module, words: torch.nn.Module | None) -> None:
        super().__init__()
        self.summary, self.words = summary, words

    def forward(self, tokens_0: torch.Tensor, tokens_1: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        states = self.summary(tokens_0)
        hidden = states.last_hidden_state if self.words is None else self.words(tokens_1)[0]
        return hidden, states.pooler_output


class Denoiser(torch.nn.Module):
    """`latents` (b, c, h, w), `timestep` (b,), `cond_0` (b, l, d), `cond_1` (b, e) → `model_output` (b, c, h, w)."""

    def __init__(self, transformer: Any, side: int, length: int, image_ids: torch.Tensor, guidance_scale: float) -> None:
        super().__init__()
        self.transformer, self.half_side = transformer, side // 2
        self.embedded = guidance_scale if transformer.config.guidance_embeds else None
        self.register_buffer("image_ids", image_ids, persistent=False)
        self.register_buffer("text_ids", torch.zeros(length, 3), persistent=False)

    def forward(self, latents: torch.Tensor, timestep: torch.Tensor, cond_0: torch.Tensor, cond_1: torch.Tensor) -> torch.Tensor:
        channels, half = latents.shape[1], self.half_side
        squares = latents.reshape(-1, channels, half, 2, half, 2).permute(0, 2, 4, 1, 3, 5)
        output = self.transformer(
            hidden_states=squares.reshape(-1, half * half, channels * 4),
            timestep=timestep / 1000,
            guidance=None if self.embedded is None else torch.full_like(timestep, self.embedded),
            encoder_hidden_states=cond_0,
            pooled_projections=cond_1,
            txt_ids=self.text_ids,
            img_ids=self.image_ids,
            return_dict=False,
        )[0]
        squares = output.reshape(-1, half, half, channels, 2, 2).permute(0, 3, 1, 4, 2, 5)
        return squares.reshape(-1, channels, 2 * half, 2 * half)


def canonical(pipeline: Any, guidance: Guidance) -> Generator:
    """See `families`. FLUX needs no unconditional row. A guidance scale that the model embeds becomes a constant."""
    transformer, vae, encoder, words = pipeline.transformer, pipeline.vae, pipeline.text_encoder, pipeline.text_encoder_2
    length, word_length = int(pipeline.tokenizer_max_length), min(MAX_WORD_TOKENS, int(pipeline.tokenizer_2.model_max_length))
    channels = transformer.config.in_channels // 4
    side = _side(pipeline)
    resolution = side * pipeline.vae_scale_factor
    image_ids = pipeline._prepare_latent_image_ids(1, side // 2, side // 2, "cpu", torch.float32)
    shared = (
        length == word_length
        and pipeline.tokenizer.backend_tokenizer.to_str() == pipeline.tokenizer_2.backend_tokenizer.to_str()
        and type(encoder) is type(words)
        and weights_sha256(encoder) == weights_sha256(words)
    )
    inputs = [
        TextInput(tokenizer=pipeline.tokenizer, max_tokens=length),
        TextInput(tokenizer=pipeline.tokenizer_2, max_tokens=word_length),
    ]
    entries = tuple(inputs[:1] if shared else inputs)
    mode = guidance.embedded("flux") if transformer.config.guidance_embeds else {"mode": "none", "scale": 1.0}
    width, summary = transformer.config.joint_attention_dim, transformer.config.pooled_projection_dim

    def denoiser_example(batch: int) -> Tensors:
        return {
            "latents": normals(batch, channels, side, side),
            "timestep": timesteps(batch),
            "cond_0": normals(batch, word_length, width),
            "cond_1": normals(batch, summary),
        }

    def table(steps: int) -> dict[str, Any]:
        """A step table with the noise levels and the shift that the pipeline passes."""
        config = pipeline.scheduler.config
        keys = {"base_image_seq_len": 256, "max_image_seq_len": 4096, "base_shift": 0.5, "max_shift": 1.15}
        mu = calculate_shift((side // 2) ** 2, *(config.get(key, default) for key, default in keys.items()))
        levels = {} if config.get("use_flow_sigmas") else {"sigmas": np.linspace(1.0, 1 / steps, steps)}
        return step_table(pipeline.scheduler, steps, mu=mu, **levels)

    def reference(prompts: Sequence[str], latents: Floats, steps: int) -> Floats:
        packed = pipeline._pack_latents(torch.from_numpy(latents), len(latents), channels, side, side)
        pictures: Floats = pipeline(
            list(prompts),
            latents=packed,
            num_inference_steps=steps,
            guidance_scale=guidance.scale,
            output_type="np",
            height=resolution,
            width=resolution,
            max_sequence_length=word_length,
        ).images
        return pictures

    return Generator(
        family="flux",
        networks={
            "text": Network(
                Text(encoder, None if shared else words),
                lambda b: {f"tokens_{i}": tokens(entry.tokenizer, b, entry.max_tokens) for i, entry in enumerate(entries)},
                ("cond_0", "cond_1"),
            ),
            "denoiser": Network(Denoiser(transformer, side, word_length, image_ids, guidance.scale), denoiser_example, ("model_output",)),
            "decoder": Decoder(vae).network((channels, side, side)),
        },
        text_inputs=entries,
        latents=(channels, side, side),
        resolution_px=(resolution, resolution),
        guidance=mode,
        lineage={
            "text_encoder": weights_sha256(encoder) if shared else weights_sha256(encoder, words),
            "denoiser": weights_sha256(transformer),
            "autoencoder": weights_sha256(vae),
        },
        scheduler=pipeline.scheduler,
        table=table,
        reference=reference,
    )


def _side(pipeline: Any) -> int:
    """Side of the latents, from the autoencoder's resolution, because the transformer's config has none."""
    side = int(pipeline.default_sample_size)
    if sample_size := pipeline.vae.config.get("sample_size"):  # AutoencoderTiny has none
        side = min(int(sample_size) // pipeline.vae_scale_factor, side)
    return side - side % 2
