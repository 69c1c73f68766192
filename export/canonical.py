"""Parts of canonical networks that several families share: guidance, text inputs, the decoder, the U-Net, example inputs."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from diffusers.models.attention_processor import Attention

from resynth_fast.errors import ConfigError

from .graphs import Network


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """Guidance in the terms of diffusers' pipelines. Each family states which modes of the bundle it supports."""

    scale: float
    rescale: float = 0.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and self.scale >= 0):
            raise ConfigError(f"guidance scale is {self.scale}; it must be a finite number, 0 or more")
        if not 0 <= self.rescale <= 1:
            raise ConfigError(f"guidance rescale is {self.rescale}; it must be 0 … 1")

    def classifier_free(self, family: str, *, rescales: bool = False, unconditional: str = "empty") -> dict[str, Any]:
        """The manifest's entry: above 1 a second denoiser row (mode batch-2 or rescaled), else none."""
        doubled = self.scale > 1
        if self.rescale and not (rescales and doubled):
            because = "its guidance scale is not above 1" if rescales else f"diffusers' pipeline of {family} has no such setting"
            raise ConfigError(f"guidance mode 'rescaled' (rescale {self.rescale}) is refused: {because}; leave the rescale out")
        if not doubled:
            return {"mode": "none", "scale": 1.0}
        entry: dict[str, Any] = {"mode": "rescaled" if self.rescale else "batch-2", "scale": self.scale}
        if self.rescale:
            entry["rescale"] = self.rescale
        return entry if unconditional == "empty" else {**entry, "unconditional": unconditional}

    def embedded(self, family: str) -> dict[str, Any]:
        """The manifest's entry for a denoiser with embedded guidance: one row, and the scale is a constant of the graph."""
        if self.rescale:
            raise ConfigError(f"guidance mode 'rescaled' is refused: the denoiser of {family} embeds its guidance; leave the rescale out")
        return {"mode": "embedded", "scale": self.scale}


@dataclass(frozen=True, kw_only=True)
class TextInput:
    """One input `tokens_i`: a transformers tokenizer, and the processing of a caption before and after it."""

    tokenizer: Any
    max_tokens: int
    prefix: str = ""
    """text before every caption, but not before the empty caption of guidance"""
    lowercase: bool = False
    """captions are stripped and lowercased"""

    def __post_init__(self) -> None:
        added = self.tokenizer.get_added_vocab()
        # Pipelines write such a token out as its vectors before they tokenise; a tokenizer alone does not.
        if several := [token for token in added if f"{token}_1" in added]:
            raise ConfigError(
                f"the tokenizer has the textual inversion {several[0][:60]!r} of several vectors, which a bundle cannot expand; "
                "export the checkpoint without it"
            )


def side_of(network: Any) -> int:
    """Side of a denoiser's latents; ConfigError if its config gives no single one."""
    size = network.config.get("sample_size")
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise ConfigError(
            f"sample_size of the {type(network).__name__} is {size!r}; it must be one whole number, as bundles make square pictures: "
            "set it in its config.json"
        )
    return size


def length_of(tokenizer: Any, most: int | None = None) -> int:
    """Tokens that a caption is padded to: the tokenizer's own length, at most `most`; ConfigError if neither is given."""
    length = min(int(tokenizer.model_max_length), most or sys.maxsize)
    if length >= sys.maxsize:
        raise ConfigError(f"the {type(tokenizer).__name__} has no model_max_length; set it in tokenizer_config.json (CLIP: 77)")
    return length


class Decoder(torch.nn.Module):
    """`latents` (b, c, h, w) of the denoiser → `image` (b, 3, H, W) in [0, 1]; includes the autoencoder's scaling and shift."""

    mean: torch.Tensor | None
    std: torch.Tensor | None

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae
        self.scale = float(vae.config.scaling_factor)
        self.shift = float(vae.config.get("shift_factor") or 0.0)
        for name in ("mean", "std"):
            moments = vae.config.get(f"latents_{name}")
            self.register_buffer(name, None if moments is None else torch.tensor(moments).reshape(1, -1, 1, 1), persistent=False)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        image: torch.Tensor = self.vae.decode(self._unscaled(latents), return_dict=False)[0]
        return (image * 0.5 + 0.5).clamp(0, 1)

    def _unscaled(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents in the scale of the autoencoder's encoder."""
        if self.mean is None or self.std is None:
            return latents / self.scale + self.shift
        return latents * self.std / self.scale + self.mean

    def network(self, latents: Sequence[int], *, optimize: bool = True) -> Network:
        """The component `decoder`, for latents (c, h, w)."""
        return Network(self, lambda b: {"latents": normals(b, *latents)}, ("image",), optimize=optimize)


class UNet(torch.nn.Module):
    """`latents` (b, c, h, w), `timestep` (b,), `cond_0` (b, l, d) → `model_output` (b, c, h, w); a guidance scale may be embedded."""

    # U-Nets with these settings take inputs that no family here provides.
    FOREIGN = ("class_embed_type", "encoder_hid_dim", "encoder_hid_dim_type")

    guidance: torch.Tensor | None

    def __init__(self, unet: Any, guidance: torch.Tensor | None = None) -> None:
        super().__init__()
        if foreign := [f"{key}={unet.config[key]}" for key in self.FOREIGN if unet.config.get(key) is not None]:
            raise ConfigError(f"the U-Net has {', '.join(foreign)}, which no family supports; use a checkpoint without it")
        self.unet = unet
        self.register_buffer("guidance", guidance, persistent=False)

    def forward(self, latents: torch.Tensor, timestep: torch.Tensor, cond_0: torch.Tensor) -> torch.Tensor:
        embedded = None if self.guidance is None else self.guidance.expand(latents.shape[0], -1)
        output: torch.Tensor = self.unet(latents, timestep, timestep_cond=embedded, encoder_hidden_states=cond_0, return_dict=False)[0]
        return output


def embedded_scale(pipeline: Any, guidance: Guidance) -> torch.Tensor | None:
    """(1, e): the guidance scale embedded for a distilled U-Net, as in LatentConsistencyModelPipeline; None for other U-Nets."""
    if (width := pipeline.unet.config.get("time_cond_proj_dim")) is None:
        return None
    return pipeline.get_guidance_scale_embedding(torch.tensor([guidance.scale - 1.0]), embedding_dim=width)


class MaskedText(torch.nn.Module):
    """`tokens_0` (b, l) → `cond_0` (b, m, d), the last hidden state, and `cond_1` (b, m): 1 for a token, 0 for padding.

    m equals l. Where a prefix stands before every caption, m is `kept`: the positions of the caption and the first token.
    """

    def __init__(self, encoder: torch.nn.Module, pad_id: int, kept: int | None = None) -> None:
        super().__init__()
        self.encoder, self.pad_id, self.kept = encoder, pad_id, kept

    def forward(self, tokens_0: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mask = (tokens_0 != self.pad_id).long()
        hidden: torch.Tensor = self.encoder(tokens_0, attention_mask=mask)[0]
        if self.kept is None:
            return hidden, mask.float()
        last = self.kept - 1
        return torch.cat([hidden[:, :1], hidden[:, -last:]], dim=1), torch.cat([mask[:, :1], mask[:, -last:]], dim=1).float()


class MaskedTransformer(torch.nn.Module):
    """`latents` (b, c, h, w), `timestep` (b,), `cond_0` (b, l, d), `cond_1` (b, l) → `model_output` (b, c, h, w).

    A learned variance is cut off.
    """

    def __init__(self, transformer: Any, timestep_scale: float = 1.0, **constants: Any) -> None:
        super().__init__()
        self.transformer, self.timestep_scale, self.constants = transformer, timestep_scale, constants

    def forward(self, latents: torch.Tensor, timestep: torch.Tensor, cond_0: torch.Tensor, cond_1: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.transformer(
            latents,
            encoder_hidden_states=cond_0,
            encoder_attention_mask=cond_1,
            timestep=timestep * self.timestep_scale,
            return_dict=False,
            **self.constants,
        )[0]
        channels = latents.shape[1]
        return output[:, :channels] if output.shape[1] == 2 * channels else output


def broadcast_masks(module: torch.nn.Module) -> None:
    """Make diffusers' attention broadcast a mask over heads: a copy for each head cannot be exported with a dynamic batch."""
    for attention in module.modules():
        if isinstance(attention, Attention):
            attention.prepare_attention_mask = partial(_broadcast, attention.heads)


def _broadcast(heads: int, mask: torch.Tensor | None, *_: Any, **__: Any) -> torch.Tensor | None:
    """(b, 1, l) → (b, heads, l), as a view."""
    return None if mask is None else mask.expand(-1, heads, -1)


def normals(*shape: int) -> torch.Tensor:
    """Standard normals; the same shape gives the same values."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def timesteps(batch: int) -> torch.Tensor:
    """(batch,) float32, a different timestep in each row."""
    return torch.linspace(981.0, 21.0, batch + 1)[:batch]


def masks(batch: int, length: int) -> torch.Tensor:
    """(batch, length) float32: 1 for tokens and 0 for padding, with a different number of tokens in each row."""
    return (torch.arange(length) < torch.arange(1, batch + 1)[:, None] * length // (batch + 1) + 1).float()


def tokens(tokenizer: Any, batch: int, length: int, prefix: str = "") -> torch.Tensor:
    """(batch, length) int64: texts of several lengths, padded as in the pipelines."""
    texts = [prefix + "a small red house by the sea"[: 5 * (i + 1)] for i in range(batch)]
    ids: torch.Tensor = tokenizer(texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt").input_ids
    return ids
