"""Generators in published configurations with random weights, and tiny ones of the same families."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from resynth_fast.bundle import Bundle
from resynth_fast.export import pipelines, tiny

PROMPT = "a red house"
DEPTH = 1 / 4
"""Default share of FLUX's and T5's layers to export. Exporting all of them takes 15 minutes and 70 GB of memory."""


def stable_diffusion_15() -> Any:
    """runwayml/stable-diffusion-v1-5 in its configuration, with a tokenizer whose vocabulary is single letters."""
    unet = diffusers.UNet2DConditionModel(
        sample_size=64,
        in_channels=4,
        out_channels=4,
        block_out_channels=(320, 640, 1280, 1280),
        layers_per_block=2,
        attention_head_dim=8,
        cross_attention_dim=768,
        down_block_types=(*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
        up_block_types=("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
    )
    return diffusers.StableDiffusionPipeline(
        vae=_autoencoder(512, 0.18215),
        unet=unet,
        text_encoder=_clip(768, 12, 12, "quick_gelu"),
        tokenizer=_tokenizer(),
        scheduler=diffusers.PNDMScheduler(**_noise(), skip_prk_steps=True),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def stable_diffusion_xl(scheduler: Any = None) -> Any:
    """stabilityai/stable-diffusion-xl-base-1.0 in its configuration, but with latents of side 64 instead of 128."""
    unet = diffusers.UNet2DConditionModel(
        sample_size=64,
        in_channels=4,
        out_channels=4,
        block_out_channels=(320, 640, 1280),
        layers_per_block=2,
        attention_head_dim=(5, 10, 20),
        transformer_layers_per_block=(1, 2, 10),
        cross_attention_dim=2048,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    )
    return diffusers.StableDiffusionXLPipeline(
        vae=_autoencoder(1024, 0.13025),
        unet=unet,
        text_encoder=_clip(768, 12, 12, "quick_gelu"),
        text_encoder_2=_clip(1280, 32, 20, "gelu", projected=True),
        tokenizer=_tokenizer(),
        tokenizer_2=_tokenizer("!"),
        scheduler=scheduler or diffusers.EulerDiscreteScheduler(**_noise(), timestep_spacing="leading"),
    )


def sdxl_turbo() -> Any:
    """stabilityai/sdxl-turbo: the networks of Stable Diffusion XL at 512 px, Euler ancestral with trailing steps."""
    return stable_diffusion_xl(_turbo())


def flux_schnell(depth: float = 1.0) -> Any:
    """black-forest-labs/FLUX.1-schnell at 1024 px.

    It has the share `depth` of FLUX's blocks (19 double, 38 single) and of T5-XXL's 24 layers.
    """
    transformer = diffusers.FluxTransformer2DModel(
        patch_size=1,
        in_channels=64,
        num_layers=round(19 * depth),
        num_single_layers=round(38 * depth),
        attention_head_dim=128,
        num_attention_heads=24,
        joint_attention_dim=4096,
        pooled_projection_dim=768,
        axes_dims_rope=(16, 56, 56),
        guidance_embeds=False,
    )
    t5 = transformers.T5Config(
        vocab_size=32128,
        d_model=4096,
        d_ff=10240,
        d_kv=64,
        num_layers=round(24 * depth),
        num_heads=64,
        feed_forward_proj="gated-gelu",
        pad_token_id=0,
    )
    tokenizer = tiny.t5_tokenizer()
    tokenizer.model_max_length = 256
    return diffusers.FluxPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=1.0),
        vae=_autoencoder(1024, 0.3611, shift_factor=0.1159, latent_channels=16, use_quant_conv=False, use_post_quant_conv=False),
        transformer=transformer,
        text_encoder=_clip(768, 12, 12, "quick_gelu"),
        tokenizer=_tokenizer(),
        text_encoder_2=transformers.T5EncoderModel(t5).eval(),
        tokenizer_2=tokenizer,
    )


FULL: dict[str, Callable[[], Any]] = {"sd15": stable_diffusion_15, "sdxl": stable_diffusion_xl, "sdxl-turbo": sdxl_turbo}
DEEP: dict[str, Callable[[float], Any]] = {"flux-schnell": flux_schnell}
"""Generators that can be built with a share of their layers."""
TINY: dict[str, Callable[[], Any]] = {
    "sd15": lambda: tiny.stable_diffusion(diffusers.PNDMScheduler(**_noise(), skip_prk_steps=True)),
    "sdxl-turbo": lambda: tiny.stable_diffusion_xl(_turbo()),
    "flux-schnell": lambda: tiny.flux(guidance_embeds=False),
}


def exported(name: str, work: Path, *, small: bool, depth: float = DEPTH) -> tuple[Path, Bundle]:
    """Checkpoint and bundle of a pipeline in the folder `work`, with one step and no guidance. They are made if missing.

    With `small` it is the tiny pipeline of the same family. The export is compared with torch and diffusers as every export
    is; a full one takes minutes. A pipeline with a share of its layers has `depth` in its name.
    """
    make = TINY[name] if small else FULL.get(name) or functools.partial(DEEP[name], depth)
    name = name if small or name in FULL else f"{name}-{depth:g}"
    folder, to = work / name, work / "bundles"
    if not (to / name).exists():
        before = torch.get_default_dtype()
        torch.manual_seed(0)
        torch.set_default_dtype(before if small else torch.float16)
        try:
            make().save_pretrained(folder, safe_serialization=True)
        finally:
            torch.set_default_dtype(before)
        pipelines.export(folder, to, name=name, licence="random weights", steps=(1,), guidance_scale=1.0, prompts=(PROMPT,))
    return folder, Bundle.open(to / name)


def _turbo() -> Any:
    return diffusers.EulerAncestralDiscreteScheduler(**_noise(), timestep_spacing="trailing")


def _noise() -> dict[str, Any]:
    return {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}


def _autoencoder(sample_size: int, scaling_factor: float, **changes: Any) -> Any:
    return diffusers.AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        sample_size=sample_size,
        scaling_factor=scaling_factor,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        **{"latent_channels": 4, **changes},
    )


def _clip(width: int, layers: int, heads: int, activation: str, *, projected: bool = False) -> Any:
    """The text encoder of CLIP ViT-L/14, or of OpenCLIP ViT-bigG/14 with its projection."""
    config = transformers.CLIPTextConfig(
        vocab_size=49408,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        hidden_act=activation,
        projection_dim=width,
        max_position_embeddings=77,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    return (transformers.CLIPTextModelWithProjection if projected else transformers.CLIPTextModel)(config).eval()


def _tokenizer(pad: str = "<|endoftext|>") -> Any:
    tokenizer = tiny.clip_tokenizer(pad)
    tokenizer.model_max_length = 77
    return tokenizer
