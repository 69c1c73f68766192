"""Generator families: one file each, from a diffusers pipeline to canonical networks. Found by listing this folder.

A family's file offers `PIPELINE`, the `_class_name` of `model_index.json` that it takes, and `canonical(pipeline,
guidance_scale)`. Whatever is peculiar to the family ends here: the runtime has no code for any.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import numpy.typing as npt
import torch

from resynth_fast.errors import ConfigError

from ..graphs import Network, round_weights

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Generator:
    """A generator in the terms of the bundle."""

    family: str
    networks: dict[str, Network]
    """`text`, `denoiser`, `decoder`"""
    tokenizers: tuple[tuple[Any, int], ...]
    """(transformers tokenizer, tokens at most) of each `tokens_i`"""
    latents: tuple[int, int, int]
    """(channels, height, width)"""
    resolution_px: tuple[int, int]
    """(height, width)"""
    guidance: dict[str, Any]
    lineage: dict[str, str]
    scheduler: Any
    """the noise scheduler"""
    table: Callable[[int], dict[str, Any]]
    """number of steps → step table"""
    reference: Callable[[Sequence[str], Floats, int], Floats]
    """diffusers' own pictures: prompts, start (n, c, h, w) standard normal, steps → (n, H, W, 3) in [0, 1]"""


def load(folder: Path, guidance_scale: float) -> Generator:
    """The pipeline in `folder` with its weights rounded to float16; ConfigError if no family takes it."""
    families = {
        module.PIPELINE: module for module in (importlib.import_module(f"{__name__}.{m.name}") for m in pkgutil.iter_modules(__path__))
    }
    try:
        name = json.loads((folder / "model_index.json").read_text())["_class_name"]
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"{folder} is no diffusers pipeline ({error!r}); give a folder written by save_pretrained") from error
    if name not in families:
        raise ConfigError(f"{folder} holds a {name}; the exporter knows {', '.join(sorted(families))}")
    pipeline = getattr(diffusers, name).from_pretrained(folder, local_files_only=True, use_safetensors=True, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    round_weights(*(part for part in pipeline.components.values() if isinstance(part, torch.nn.Module)))
    generator: Generator = families[name].canonical(pipeline, guidance_scale)
    return generator


class Decoder(torch.nn.Module):
    """`latents` (b, c, h, w) as the denoiser leaves them → `image` (b, 3, H, W) in [0, 1]; scaling and shift included."""

    def __init__(self, vae: Any) -> None:
        super().__init__()
        self.vae = vae
        self.scale = float(vae.config.scaling_factor)
        self.shift = float(getattr(vae.config, "shift_factor", None) or 0.0)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        image: torch.Tensor = self.vae.decode(latents / self.scale + self.shift, return_dict=False)[0]
        return (image * 0.5 + 0.5).clamp(0, 1)


def normals(*shape: int) -> torch.Tensor:
    """Standard normals, the same for the same shape."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def timesteps(batch: int) -> torch.Tensor:
    """(batch,) float32, another for each row."""
    return torch.linspace(981.0, 21.0, batch + 1)[:batch]


def tokens(tokenizer: Any, batch: int, length: int) -> torch.Tensor:
    """(batch, length) int64: texts of several lengths, padded as the pipelines do it."""
    texts = ["a small red house by the sea"[: 5 * (i + 1)] for i in range(batch)]
    ids: torch.Tensor = tokenizer(texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt").input_ids
    return ids
