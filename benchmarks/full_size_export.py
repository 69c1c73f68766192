"""Export generators of full size, with random weights in the published configurations, and say what it takes.

python benchmarks/full_size_export.py sd15            Stable Diffusion 1.5, the whole pipeline
python benchmarks/full_size_export.py sdxl --json     Stable Diffusion XL at 512 px, as a JSON object

Makes a checkpoint in float16, exports it (every component and a whole picture compared with torch and diffusers), draws
a picture of one step through the runtime, each in a process of its own, whose peak resident memory is the kernel's own
VmHWM: pages of mapped files are in it.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PROMPT = "a small red house by the sea"
RESULTS = HERE / "results" / "full_size"


def main() -> None:
    """Each stage in its own process, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=sorted(MODELS))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--keep", action="store_true", help=f"write the result into {RESULTS.relative_to(HERE.parent)}")
    parser.add_argument("--work", type=Path, help="folder for checkpoint and bundle, which stay; else a temporary one")
    parser.add_argument("--stage", choices=sorted(STAGES), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.stage:
        print(json.dumps(STAGES[arguments.stage](arguments.model, arguments.work) | {"peak_bytes": _peak_bytes()}))
        return
    with tempfile.TemporaryDirectory() as scratch:
        work = arguments.work or Path(scratch)
        stages = {name: _stage(arguments.model, name, work) for name in STAGES}
    record = {
        "command": f"python benchmarks/full_size_export.py {arguments.model}",
        "commit": subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True, check=False
        ).stdout.strip(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {os.environ.get('OMP_NUM_THREADS', 'all')} threads",
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "model": arguments.model,
        **stages,
    }
    if arguments.keep:
        RESULTS.mkdir(parents=True, exist_ok=True)
        (RESULTS / f"{arguments.model}.json").write_text(json.dumps(record, indent=1) + "\n")
    if arguments.json:
        print(json.dumps(record))
        return
    for name, figures in stages.items():
        print(
            f"{name:10} {figures['seconds']:7.0f} s, peak {figures['peak_bytes'] / 2**30:5.1f} GiB",
            {k: v for k, v in figures.items() if isinstance(v, dict)},
        )


def _stage(model: str, name: str, work: Path) -> dict[str, Any]:
    command = [sys.executable, str(HERE / "full_size_export.py"), model, "--stage", name, "--work", str(work)]
    start = time.perf_counter()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return {"seconds": time.perf_counter() - start, **json.loads(done.stdout.splitlines()[-1])}


def checkpoint(model: str, work: Path) -> dict[str, Any]:
    """Write a pipeline with random weights in float16, as `save_pretrained` does."""
    import torch

    torch.manual_seed(0)
    torch.set_default_dtype(torch.float16)
    MODELS[model]().save_pretrained(work / model, safe_serialization=True)
    return {"bytes": sum(path.stat().st_size for path in (work / model).rglob("*.safetensors"))}


def export(model: str, work: Path) -> dict[str, Any]:
    """Export it in fp16 with one step table, compared with torch and diffusers."""
    from resynth_fast.export import pipelines
    from resynth_fast.export.verify import Parity

    parity = Parity()
    bundle = pipelines.export(work / model, work / "bundles", name=model, licence="none", steps=(1,), prompts=(PROMPT,), parity=parity)
    return {
        "bytes": {name: component.size_bytes for name, component in bundle.components.items()},
        "external": {name: len(component.data) for name, component in bundle.components.items()},
        "component_seconds": parity.seconds,
        "components": parity.components,
        "pictures": parity.pictures,
    }


def draw(model: str, work: Path) -> dict[str, Any]:
    """One picture of one denoising step through the runtime, which knows no torch."""
    from resynth_fast.bundle import Bundle
    from resynth_fast.candidates.engine import EngineCandidate
    from resynth_fast.engines import EnginePool

    pool = EnginePool(threads=int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    [picture] = EngineCandidate(Bundle.open(work / "bundles" / model), pool).make([PROMPT], [0], 1)
    assert "torch" not in sys.modules
    return {"shape": list(picture.shape), "deviation": float(picture.std()), "load_seconds": pool.account.load_ms / 1000}


STAGES: dict[str, Callable[[str, Path], dict[str, Any]]] = {"checkpoint": checkpoint, "export": export, "draw": draw}


def stable_diffusion_15() -> Any:
    """runwayml/stable-diffusion-v1-5: its configurations, with a tokenizer that knows letters alone."""
    import diffusers

    unet = diffusers.UNet2DConditionModel(
        sample_size=64, in_channels=4, out_channels=4, block_out_channels=(320, 640, 1280, 1280), layers_per_block=2, attention_head_dim=8,
        cross_attention_dim=768, down_block_types=(*("CrossAttnDownBlock2D",) * 3, "DownBlock2D"),
        up_block_types=("UpBlock2D", *("CrossAttnUpBlock2D",) * 3),
    )  # fmt: skip
    return diffusers.StableDiffusionPipeline(
        vae=_autoencoder(512, 0.18215), unet=unet, text_encoder=_clip(768, 12, 12, "quick_gelu"), tokenizer=_tokenizer(),
        scheduler=diffusers.PNDMScheduler(**_noise(), skip_prk_steps=True), safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip


def stable_diffusion_xl() -> Any:
    """stabilityai/stable-diffusion-xl-base-1.0: its configurations, but for the size of the latents, 64 where it has 128."""
    import diffusers

    unet = diffusers.UNet2DConditionModel(
        sample_size=64, in_channels=4, out_channels=4, block_out_channels=(320, 640, 1280), layers_per_block=2, attention_head_dim=(5, 10, 20),
        transformer_layers_per_block=(1, 2, 10), cross_attention_dim=2048, use_linear_projection=True, addition_embed_type="text_time",
        addition_time_embed_dim=256, projection_class_embeddings_input_dim=2816,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    return diffusers.StableDiffusionXLPipeline(
        vae=_autoencoder(1024, 0.13025), unet=unet, text_encoder=_clip(768, 12, 12, "quick_gelu"),
        text_encoder_2=_clip(1280, 32, 20, "gelu", projected=True), tokenizer=_tokenizer(), tokenizer_2=_tokenizer("!"),
        scheduler=diffusers.EulerDiscreteScheduler(**_noise(), timestep_spacing="leading"),
    )  # fmt: skip


MODELS = {"sd15": stable_diffusion_15, "sdxl": stable_diffusion_xl}


def _noise() -> dict[str, Any]:
    return {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}


def _autoencoder(sample_size: int, scaling_factor: float) -> Any:
    import diffusers

    return diffusers.AutoencoderKL(
        block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4, sample_size=sample_size, scaling_factor=scaling_factor,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    )  # fmt: skip


def _clip(width: int, layers: int, heads: int, activation: str, *, projected: bool = False) -> Any:
    """The text encoder of CLIP ViT-L/14, or of OpenCLIP ViT-bigG/14 with its projection."""
    import transformers

    config = transformers.CLIPTextConfig(
        vocab_size=49408, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers, num_attention_heads=heads,
        hidden_act=activation, projection_dim=width, max_position_embeddings=77, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    return (transformers.CLIPTextModelWithProjection if projected else transformers.CLIPTextModel)(config).eval()


def _tokenizer(pad: str = "<|endoftext|>") -> Any:
    from resynth_fast.export import tiny

    tokenizer = tiny.clip_tokenizer(pad)
    tokenizer.model_max_length = 77
    return tokenizer


def _peak_bytes() -> int:
    """Largest resident memory of this process so far."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return 1024 * int(line.split()[1])


if __name__ == "__main__":
    main()
