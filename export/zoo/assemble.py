"""Assemble trained parts as diffusers pipelines, and export them as the embedded zoo."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextModel, CLIPTokenizer

from resynth_fast.bundle import Bundle

from .. import pipelines
from .attributes import caption, draw, held_out
from .denoiser import NOISE, DenoiserRecipe
from .recipes import DENOISERS

STEPS = (1, 2, 4, 8, 20, 40)
GUIDANCE_SCALE = 3.0
WITHHELD = ("zoo-withheld",)
ART = (
    "drawn by DiceBear from Open Peeps by Pablo Stanley (CC0 1.0), Pixel Art by DiceBear (CC0 1.0), "
    "Personas by Draftbit (CC BY 4.0, remixed by DiceBear)"
)


def pipeline(
    recipe: DenoiserRecipe,
    vae: AutoencoderKL,
    tokenizer: CLIPTokenizer,
    encoder: CLIPTextModel,
    denoiser: UNet2DConditionModel | FluxTransformer2DModel,
) -> Any:
    """The pipeline of one generator, with the noise scheduler for its prediction."""
    if recipe.family == "flux":
        return FluxPipeline(
            scheduler=noise_scheduler(recipe),
            vae=vae,
            transformer=denoiser,
            text_encoder=encoder,
            tokenizer=tokenizer,
            text_encoder_2=encoder,
            tokenizer_2=tokenizer,
        )
    return StableDiffusionPipeline(
        scheduler=noise_scheduler(recipe),
        vae=vae,
        unet=denoiser,
        text_encoder=encoder,
        tokenizer=tokenizer,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def noise_scheduler(recipe: DenoiserRecipe) -> Any:
    """The noise scheduler for the recipe's prediction."""
    if recipe.family == "flux":
        return FlowMatchEulerDiscreteScheduler(shift=1.0)
    if recipe.prediction == "v_prediction":
        return DPMSolverMultistepScheduler(**NOISE, prediction_type="v_prediction")
    return DDIMScheduler(**NOISE, clip_sample=False, set_alpha_to_one=False, steps_offset=1)


def assemble(work: Path, name: str) -> Path:
    """Assemble the pipeline `name` from the parts in `work` and save it in diffusers' format; returns its folder."""
    recipe = DENOISERS[name]
    network = FluxTransformer2DModel if recipe.family == "flux" else UNet2DConditionModel
    assembled = pipeline(
        recipe,
        AutoencoderKL.from_pretrained(work / "autoencoders" / recipe.autoencoder),
        CLIPTokenizer.from_pretrained(work / "tokenizer"),
        CLIPTextModel.from_pretrained(work / "text_encoder"),
        network.from_pretrained(work / "denoisers" / name),
    )
    folder = work / "pipelines" / name
    assembled.save_pretrained(folder, safe_serialization=True)
    return folder


def export(work: Path, name: str, to: Path) -> Bundle:
    """The bundle of the assembled pipeline `name` in the folder `to`."""
    recipe = DENOISERS[name]
    records = {
        "denoiser": work / "denoisers" / name,
        "autoencoder": work / "autoencoders" / recipe.autoencoder,
        "text_encoder": work / "text_encoder",
    }
    card = {
        "description": "A tiny generator of drawn faces, trained for demonstration and tests; it generates nothing else.",
        "data": f"pictures of 64×64 px {ART}; one caption in eight was left out of training",
        "autoencoder": recipe.autoencoder,
        "prediction": recipe.prediction,
        "training": {part: json.loads((folder / "training.json").read_text()) for part, folder in records.items()},
    }
    return pipelines.export(
        work / "pipelines" / name,
        to,
        name=name,
        licence="Apache-2.0",
        steps=STEPS,
        guidance_scale=GUIDANCE_SCALE,
        prompts=prompts(6),
        card=card,
        role="withheld" if name in WITHHELD else "candidate",
    )


def prompts(count: int) -> list[str]:
    """Distinct captions that no model was trained on; always the same ones."""
    captions: dict[str, None] = {}
    for face in draw(np.random.default_rng(2)):
        text = caption(face)
        if held_out(text):
            captions[text] = None
        if len(captions) == count:
            break
    return list(captions)
