"""Train the zoo's denoisers (diffusers U-Nets and Flux transformers) on cached latents and text states."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import AutoencoderKL, DDPMScheduler, FluxPipeline, FluxTransformer2DModel, UNet2DConditionModel
from torch.nn import functional as F
from transformers import CLIPTextModel, CLIPTokenizer

from . import autoencoder, text
from .faces import SIDE, Faces
from .training import Schedule, fit

# The noise levels of Stable Diffusion, shared by every discrete-time model of the zoo.
NOISE: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
CAPTION_DROPOUT = 0.1


@dataclass(frozen=True, kw_only=True)
class DenoiserRecipe:
    """One generator: its autoencoder, network, prediction and training."""

    family: Literal["stable-diffusion", "flux"]
    autoencoder: str
    prediction: Literal["epsilon", "v_prediction", "flow"]
    network: dict[str, Any]
    schedule: Schedule

    def build(self, latent_channels: int, latent_side: int) -> UNet2DConditionModel | FluxTransformer2DModel:
        torch.manual_seed(self.schedule.seed)
        if self.family == "flux":
            return FluxTransformer2DModel(
                patch_size=1,
                in_channels=latent_channels * 4,
                guidance_embeds=False,
                joint_attention_dim=text.WIDTH,
                pooled_projection_dim=text.WIDTH,
                **self.network,
            )
        return UNet2DConditionModel(
            sample_size=latent_side,
            in_channels=latent_channels,
            out_channels=latent_channels,
            cross_attention_dim=text.WIDTH,
            **self.network,
        )


def train(
    recipe: DenoiserRecipe, vae: AutoencoderKL, tokenizer: CLIPTokenizer, encoder: CLIPTextModel, faces: Faces, checkpoint: Path
) -> tuple[UNet2DConditionModel | FluxTransformer2DModel, dict[str, float]]:
    """Train a denoiser in latent space; captions are dropped at random, for classifier-free guidance."""
    posterior = autoencoder.encode(vae, faces.pictures) * vae.config.scaling_factor
    channels = posterior.shape[1] // 2
    mean, std = posterior[:, :channels], posterior[:, channels:]
    hidden, pooled = text.embed(encoder, text.tokens(tokenizer, [*faces.captions, ""]))
    model = recipe.build(channels, mean.shape[-1])
    batch, side = recipe.schedule.batch, mean.shape[-1]
    noise_levels = DDPMScheduler(**NOISE, prediction_type="epsilon")
    text_ids = torch.zeros(text.MAX_TOKENS, 3)
    image_ids = FluxPipeline._prepare_latent_image_ids(1, side // 2, side // 2, "cpu", torch.float32)

    def pack(latents: torch.Tensor) -> torch.Tensor:
        return FluxPipeline._pack_latents(latents, batch, channels, side, side)

    def loss(rng: torch.Generator) -> torch.Tensor:
        rows = torch.randint(len(faces), (batch,), generator=rng)
        latents = mean[rows] + std[rows] * torch.randn(mean[rows].shape, generator=rng)
        noise = torch.randn(latents.shape, generator=rng)
        dropped = torch.rand(batch, generator=rng) < CAPTION_DROPOUT
        rows = torch.where(dropped, len(faces), rows)  # the last row is the empty caption
        condition, summary = hidden[rows].float(), pooled[rows].float()
        if recipe.prediction == "flow":
            t = torch.sigmoid(torch.randn(batch, generator=rng))
            level = t[:, None, None, None]
            output = model(
                hidden_states=pack((1 - level) * latents + level * noise),
                timestep=t,
                pooled_projections=summary,
                encoder_hidden_states=condition,
                txt_ids=text_ids,
                img_ids=image_ids,
                return_dict=False,
            )[0]
            return F.mse_loss(output, pack(noise - latents))
        steps = torch.randint(NOISE["num_train_timesteps"], (batch,), generator=rng)
        output = model(noise_levels.add_noise(latents, noise, steps), steps, condition).sample
        target = noise if recipe.prediction == "epsilon" else noise_levels.get_velocity(latents, noise, steps)
        return F.mse_loss(output, target)

    record = fit(model, loss, recipe.schedule, checkpoint)
    record["parameters"] = sum(p.numel() for p in model.parameters())
    return model, record


assert SIDE % 8 == 0  # every autoencoder of the zoo halves the side two or three times
