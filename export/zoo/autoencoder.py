"""Train the zoo's autoencoders (diffusers `AutoencoderKL`) and cache the latents that denoisers learn from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch.nn import functional as F

from resynth_fast.types import Bytes

from .faces import SIDE, Faces
from .training import Schedule, fit


@dataclass(frozen=True, kw_only=True)
class AutoencoderRecipe:
    """Architecture and loss of one autoencoder; the downsampling factor is 2^(levels - 1)."""

    channels: tuple[int, ...]
    latent_channels: int
    groups: int
    schedule: Schedule
    attention: bool = False
    squared_error: float = (
        0.0  # weight of the squared error beside the absolute one; another weight gives another decoder, thus another fingerprint
    )
    kl: float = 1e-4

    def build(self) -> AutoencoderKL:
        torch.manual_seed(self.schedule.seed)
        levels = len(self.channels)
        model = AutoencoderKL(
            in_channels=3,
            out_channels=3,
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels,
            block_out_channels=self.channels,
            layers_per_block=1,
            latent_channels=self.latent_channels,
            norm_num_groups=self.groups,
            mid_block_add_attention=self.attention,
            sample_size=SIDE,
        )
        # The posterior starts narrow, so that the model learns to reconstruct before noise is added.
        with torch.no_grad():
            bias = model.quant_conv.bias if model.quant_conv is not None else model.encoder.conv_out.bias
            bias[self.latent_channels :] = -5.0
        return model


def as_tensor(pictures: Bytes) -> torch.Tensor:
    """`(n, H, W, 3)` uint8 → `(n, 3, H, W)` float32 in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


def as_pictures(images: torch.Tensor) -> Bytes:
    """The inverse of `as_tensor`, clipped."""
    return ((images.permute(0, 2, 3, 1) + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).numpy()


def train(recipe: AutoencoderRecipe, faces: Faces, checkpoint: Path) -> tuple[AutoencoderKL, dict[str, float]]:
    """A trained autoencoder with its scaling factor, and a record of training time and reconstruction error."""
    model = recipe.build()

    def loss(rng: torch.Generator) -> torch.Tensor:
        rows = torch.randint(len(faces), (recipe.schedule.batch,), generator=rng)
        image = as_tensor(faces.pictures[rows.numpy()])
        posterior = model.encode(image).latent_dist
        latents = posterior.mean + posterior.std * torch.randn(posterior.mean.shape, generator=rng)
        error = model.decode(latents).sample - image
        absolute = error.abs().mean()
        edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
        colour = F.avg_pool2d(error, 8).abs().mean()
        kl = 0.5 * (posterior.mean.pow(2) + posterior.var - 1 - posterior.logvar).mean()
        return absolute + 0.5 * edges + 0.5 * colour + recipe.squared_error * error.pow(2).mean() + recipe.kl * kl

    record = fit(model, loss, recipe.schedule, checkpoint)
    latents = encode(model, faces.pictures[:2000])
    model.register_to_config(scaling_factor=1 / float(latents[:, : recipe.latent_channels].std()), shift_factor=0.0)
    return model, record


@torch.no_grad()
def encode(model: AutoencoderKL, pictures: Bytes) -> torch.Tensor:
    """Posterior mean and standard deviation, stacked on channels: `(n, 2c, h, w)` float32, unscaled."""
    posteriors = [model.encode(as_tensor(pictures[i : i + 100])).latent_dist for i in range(0, len(pictures), 100)]
    return torch.cat([torch.cat([p.mean, p.std], 1) for p in posteriors])


@torch.no_grad()
def reconstruct(model: AutoencoderKL, pictures: Bytes) -> Bytes:
    """Encode and decode `pictures` `(n, H, W, 3)`."""
    parts = [model.decode(model.encode(as_tensor(pictures[i : i + 100])).latent_dist.mean).sample for i in range(0, len(pictures), 100)]
    return as_pictures(torch.cat(parts).clamp(-1, 1))


def psnr(pictures: Bytes, others: Bytes) -> float:
    """Mean peak signal-to-noise ratio in dB over pictures `(n, H, W, 3)`."""
    error = ((pictures.astype(np.float64) - others) ** 2).mean((1, 2, 3))
    return float(np.mean(10 * np.log10(255**2 / np.maximum(error, 1e-9))))
