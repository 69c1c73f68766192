"""Generation parameters as programs record them in pictures, and a picture to put them in."""

from __future__ import annotations

import numpy as np
from PIL import Image

A1111 = """a red fox, (snow:1.2) <lora:fox_v2:0.8>
in a forest, Steps: many
Negative prompt: blurry, text
watermark
Steps: 28, Sampler: DPM++ 2M Karras, CFG scale: 6.5, Seed: 18446744073709551615, Size: 512x768, Model hash: 6ce0161689, Model: "dream, shaper: 8", Version: v1.9.4"""  # noqa: E501


SD = {
    "3": {
        "class_type": "KSampler",
        "inputs": {
            "seed": 7,
            "steps": 20,
            "cfg": 8.0,
            "model": ["4", 0],
            "positive": ["6", 0],
            "negative": ["7", 0],
            "latent_image": ["5", 0],
        },
    },
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "v1-5-pruned.safetensors"}},
    "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 512, "height": 512}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a glass bottle", "clip": ["4", 1]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "watermark", "clip": ["4", 1]}},
}
SECOND_PASS = {
    "1": {
        "class_type": "KSampler",
        "inputs": {
            "seed": 99,
            "steps": 5,
            "cfg": 2.0,
            "model": ["4", 0],
            "positive": ["6", 0],
            "negative": ["7", 0],
            "latent_image": ["2", 0],
        },
    },
    "2": {"class_type": "LatentUpscale", "inputs": {"samples": ["3", 0]}},
}
FLUX = {
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": ["40", 0], "clip": ["11", 0]}},
    "40": {"class_type": "PrimitiveStringMultiline", "inputs": {"value": "cute anime girl"}},
    "10": {"class_type": "VAELoader", "inputs": {"vae_name": "ae.safetensors"}},
    "11": {"class_type": "DualCLIPLoader", "inputs": {"clip_name1": "t5xxl_fp16.safetensors", "clip_name2": "clip_l.safetensors"}},
    "12": {"class_type": "UNETLoader", "inputs": {"unet_name": "flux1-dev.safetensors"}},
    "13": {
        "class_type": "SamplerCustomAdvanced",
        "inputs": {"noise": ["25", 0], "guider": ["22", 0], "sampler": ["16", 0], "sigmas": ["17", 0], "latent_image": ["27", 0]},
    },
    "16": {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "euler"}},
    "17": {"class_type": "BasicScheduler", "inputs": {"scheduler": "simple", "steps": 20, "denoise": 1.0, "model": ["12", 0]}},
    "22": {"class_type": "BasicGuider", "inputs": {"model": ["12", 0], "conditioning": ["26", 0]}},
    "25": {"class_type": "RandomNoise", "inputs": {"noise_seed": 219670278747233}},
    "26": {"class_type": "FluxGuidance", "inputs": {"guidance": 3.5, "conditioning": ["6", 0]}},
    "27": {"class_type": "EmptySD3LatentImage", "inputs": {"width": 1024, "height": 1024}},
}
Z_IMAGE = {
    "3": {
        "class_type": "KSampler",
        "inputs": {
            "seed": 3,
            "steps": 9,
            "cfg": 1,
            "model": ["11", 0],
            "positive": ["27", 0],
            "negative": ["33", 0],
            "latent_image": ["13", 0],
        },
    },
    "11": {"class_type": "ModelSamplingAuraFlow", "inputs": {"shift": 3, "model": ["28", 0]}},
    "13": {"class_type": "EmptySD3LatentImage", "inputs": {}},
    "27": {"class_type": "CLIPTextEncode", "inputs": {"text": "a lighthouse", "clip": ["30", 0]}},
    "28": {"class_type": "SomeNewModelLoader", "inputs": {"file": "z_image_turbo_bf16.safetensors"}},
    "30": {"class_type": "CLIPLoader", "inputs": {"clip_name": "qwen_3_4b.safetensors"}},
    "33": {"class_type": "ConditioningZeroOut", "inputs": {"conditioning": ["27", 0]}},
}
WORKFLOW = {
    "nodes": [
        {"type": "VAELoader", "widgets_values": ["ae.safetensors"]},
        {"type": "UnetLoaderGGUF", "widgets_values": ["flux1-dev-Q4.gguf"]},
    ],
    "links": [],
}
INVOKE = {
    "app_version": "5.4.0",
    "positive_prompt": "a castle",
    "negative_prompt": "",
    "seed": 42,
    "steps": 30,
    "cfg_scale": 7.5,
    "model": {"key": "x", "name": "juggernaut"},
}
LEGACY = {
    "app_version": "2.3.5",
    "model_weights": "stable-diffusion-1.5",
    "image": {"prompt": [{"prompt": "an old map", "weight": 1.0}], "seed": 1, "steps": 50, "cfg_scale": 7},
}


def noise(side: int = 64) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8))
