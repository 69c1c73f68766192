"""The contestants: diffusers' own pipelines and our candidates, all from the same noise, with one step and no guidance."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapes
import torch
from diffusers import DiffusionPipeline, FluxPipeline

from gpu.rows import Pixels
from gpu.setting import Setting
from resynth_fast.bundle import Bundle
from resynth_fast.candidates.engine import EngineCandidate
from resynth_fast.engines.pool import EnginePool
from resynth_fast.engines.text_cache import TextCache
from resynth_fast.errors import ResynthError
from resynth_fast.kernels.noise import normal_rows


def opened(folder: Path, dtype: torch.dtype, device: torch.device) -> Any:
    """Diffusers' own pipeline, loaded on `device`."""
    pipeline = DiffusionPipeline.from_pretrained(folder, local_files_only=True, use_safetensors=True, dtype=dtype).to(device)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.vae.register_to_config(force_upcast=False)  # ours decodes in 16 bits too
    return pipeline


def pipelines(s: Setting, name: str) -> Iterator[tuple[str, Any]]:
    """The pipeline eager, compiled, and with xformers' attention. A variant that does not work is reported on stderr."""
    folder, bundle = s.shaped(name)
    yield "diffusers", opened(folder, s.dtype(name), s.device)
    if not s.tiny:
        compiled = opened(folder, s.dtype(name), s.device)
        compiled.unet = torch.compile(compiled.unet)
        yield "torch.compile", compiled
    if importlib.util.find_spec("xformers") is None:
        print("skipped: xformers: not installed", file=sys.stderr)
        return
    other = opened(folder, s.dtype(name), s.device)
    try:
        other.enable_xformers_memory_efficient_attention()
        by_diffusers(other, bundle, [0])
    except Exception as error:  # a build without this device's kernels fails in many ways
        print(f"skipped: xformers: {str(error).splitlines()[0][:200] if str(error) else type(error).__name__}", file=sys.stderr)
    else:
        yield "diffusers, xformers", other


@torch.inference_mode()
def by_diffusers(pipeline: Any, bundle: Bundle, seeds: Sequence[int]) -> list[Pixels]:
    """Pictures (H, W, 3) of all seeds, generated in one batch."""
    start = normal_rows(seeds, [0] * len(seeds), bundle.latents)
    latents = torch.from_numpy(start).to(pipeline.device, pipeline.dtype)
    arguments: dict[str, Any] = dict(zip(("height", "width"), bundle.resolution_px, strict=True))
    if isinstance(pipeline, FluxPipeline):
        latents = pipeline._pack_latents(latents, len(seeds), *bundle.latents)
        arguments["max_sequence_length"] = pipeline.tokenizer_2.model_max_length
    images = pipeline(
        [shapes.PROMPT] * len(seeds), latents=latents, guidance_scale=1.0, num_inference_steps=1, output_type="np", **arguments
    ).images
    return list(np.rint(images * 255).astype(np.uint8))


def by_us(candidate: EngineCandidate, pool: EnginePool, seeds: Sequence[int]) -> list[Pixels]:
    """The same pictures by the runtime, with an empty cache of encoded texts."""
    pool.text_cache = TextCache()
    return candidate.make([shapes.PROMPT] * len(seeds), seeds, 1)


@torch.inference_mode()
def in_torch(module: Callable[..., torch.Tensor], inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """A forward pass."""
    return module(**inputs)


def usable(s: Setting, wanted: Iterable[str], bundle: Bundle) -> Iterator[tuple[str, EnginePool]]:
    """The backends that are installed and load the bundle. The others are reported on stderr."""
    for name in wanted:
        try:
            pool = s.pool(name)
            for component in bundle.components.values():
                pool.get(component)
        except ResynthError as error:
            print(f"skipped: {name}: {error}", file=sys.stderr)
        else:
            yield name, pool
