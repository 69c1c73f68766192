"""Networks for the benchmarks of backends: the zoo's with trained weights, and larger published ones with random weights."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from resynth_fast import zoo
from resynth_fast.bundle import Component
from resynth_fast.export import bundles, checkpoints, families
from resynth_fast.export.canonical import UNet, normals, timesteps
from resynth_fast.export.encoders import Pictures
from resynth_fast.export.graphs import Network
from resynth_fast.export.zoo import restore

ZOO = {"zoo-sd": ("text", "denoiser", "decoder"), "zoo-sd-v": ("denoiser",), "zoo-flux": ("denoiser", "decoder")}
"""The zoo's distinct graphs. zoo-sd-twin has the graphs of zoo-sd, and all generators share a text encoder."""
CONTEXT = (77, 256)


@functools.cache
def of_zoo(name: str) -> Mapping[str, Network]:
    """Component → network of a generator of the embedded zoo, restored from its bundle (takes 15 seconds)."""
    bundle = zoo.bundle(name)
    with tempfile.TemporaryDirectory() as folder, checkpoints.quiet():
        restored: Mapping[str, Network] = families.load(restore.save(bundle, Path(folder)), bundle.guidance.scale, halved=False).networks
    return restored


def unet_64m() -> Network:
    """A U-Net of 64.1 M parameters on 32 × 32 latents with a context of 77 × 256."""
    torch.manual_seed(0)
    module = diffusers.UNet2DConditionModel(
        sample_size=32,
        block_out_channels=(128, 256, 384),
        layers_per_block=2,
        cross_attention_dim=CONTEXT[1],
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    )
    return Network(
        UNet(module).eval(),
        lambda b: {"latents": normals(b, 4, 32, 32), "timestep": timesteps(b), "cond_0": normals(b, *CONTEXT)},
        ("model_output",),
    )


def vision(width: int = 768, layers: int = 12, patch_px: int = 16, side_px: int = 224) -> Network:
    """CLIP's image encoder with random weights, by default ViT-B/16: `pixel_values` → `whole_picture`."""
    torch.manual_seed(0)
    config = transformers.CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        patch_size=patch_px,
        image_size=side_px,
    )
    module: Any = transformers.CLIPVisionModel(config)
    return Network(Pictures(module).eval(), lambda b: {"pixel_values": normals(b, 3, side_px, side_px)}, ("whole_picture",))


def exported(network: Network, to: Path, name: str = "network") -> Component:
    """Export `network` as the only component of a bundle in the folder `to`, and compare it with torch."""
    fields = {"name": name, "kind": "extractor", "family": "benchmark", "licence": "random weights"}
    component: Component = bundles.write(to, fields, {"network": network}, precision="float32").components["network"]
    return component
