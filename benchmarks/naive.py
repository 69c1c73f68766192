"""The naive loop, without this project's runtime: every candidate's diffusers pipeline, then features, then SciPy.

    python -m resynth_fast.export.zoo restore zoo-flux zoo-sd zoo-sd-twin zoo-sd-v --to DIR
    python benchmarks/naive.py PICTURE --pipelines DIR --references 1 --steps 8

Pipelines stay resident, and torch runs in inference mode with its fused attention. References are generated one at a time,
or with `--batch` all of a candidate's together. The comparison is the paper's. Noise and features are ours, so that
pictures and distances can be compared.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from diffusers import DiffusionPipeline, FluxPipeline
from paper import Answer, nearest
from PIL import Image

from resynth_fast import zoo
from resynth_fast.extractors.space import FeatureSpace, open_space
from resynth_fast.kernels.noise import normals

Pixels = npt.NDArray[np.uint8]

GUIDANCE_SCALE = 3.0  # the default of the zoo's bundles


class Naive:
    """The loop over diffusers pipelines."""

    def __init__(self, folders: Sequence[Path], space: FeatureSpace) -> None:
        self.space = space
        self.pipelines: dict[str, Any] = {}
        for folder in folders:
            self.pipelines[folder.name] = DiffusionPipeline.from_pretrained(folder, local_files_only=True, use_safetensors=True)
            self.pipelines[folder.name].set_progress_bar_config(disable=True)

    def attribute(self, probe: Pixels, caption: str, seeds: Sequence[int], steps: int, *, batch: bool = False) -> Answer:
        """The candidate with the nearest reference. `seeds` are those of the references' noise."""
        return nearest(self.space, probe, {name: self.draw(name, caption, seeds, steps, batch=batch) for name in self.pipelines})

    def draw(self, name: str, caption: str, seeds: Sequence[int], steps: int, *, batch: bool = False) -> list[Pixels]:
        """A candidate's pictures (H, W, 3) of `caption`, one for each seed, one or all at a time."""
        groups = [list(seeds)] if batch else [[seed] for seed in seeds]
        return [picture for group in groups for picture in self._call(self.pipelines[name], caption, group, steps)]

    @torch.inference_mode()
    def _call(self, pipeline: Any, caption: str, seeds: Sequence[int], steps: int) -> list[Pixels]:
        side = pipeline.vae.config.sample_size // pipeline.vae_scale_factor
        shape = (pipeline.vae.config.latent_channels, side, side)
        latents = torch.from_numpy(np.stack([normals(seed, 0, shape) for seed in seeds]))
        arguments: dict[str, Any] = {"guidance_scale": GUIDANCE_SCALE, "num_inference_steps": steps, "output_type": "np"}
        if isinstance(pipeline, FluxPipeline):
            size = pipeline.vae.config.sample_size
            latents = pipeline._pack_latents(latents, len(seeds), *shape)
            arguments |= {"height": size, "width": size, "max_sequence_length": pipeline.tokenizer_2.model_max_length}
        images = pipeline([caption] * len(seeds), latents=latents, **arguments).images
        return list(np.rint(images * 255).astype(np.uint8))


def read(path: Path) -> Pixels:
    """A picture file (H, W, 3)."""
    with Image.open(path) as image:
        return np.array(image.convert("RGB"))


def main() -> None:
    """Attribute one picture and print a JSON object: label, distances, seconds, peak memory (load_s excludes imports)."""
    start = time.perf_counter()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--pipelines", type=Path, required=True, help="folder of diffusers pipelines, one per candidate")
    parser.add_argument("--candidates", nargs="+", help="names of pipelines (default: all)")
    parser.add_argument("--references", type=int, default=1)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0, help="seed of the first reference; the next ones follow")
    parser.add_argument("--batch", action="store_true", help="generate a candidate's references in one batch")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--caption", help="caption of the picture (default: the zoo's captioner's)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    probe = read(arguments.picture)
    caption = arguments.caption or _caption(probe, arguments.threads)
    folders = [arguments.pipelines / name for name in arguments.candidates or sorted(os.listdir(arguments.pipelines))]
    naive = Naive(folders, open_space(zoo.bundle(zoo.TEXTURE)))
    loaded = time.perf_counter()
    seeds = range(arguments.seed, arguments.seed + arguments.references)
    answer = naive.attribute(probe, caption, seeds, arguments.steps, batch=arguments.batch)
    result = {
        "label": answer.label,
        "distances": answer.distances,
        "caption": caption,
        "load_s": loaded - start,
        "attribute_s": time.perf_counter() - loaded,
        "cpu_s": time.process_time(),  # imports included
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    json.dump(result, sys.stdout, indent=1)
    print()


def _caption(probe: Pixels, threads: int) -> str:
    from resynth_fast.captioners.tagger import Tagger
    from resynth_fast.engines.pool import EnginePool

    return Tagger(zoo.bundle(zoo.TAGGER), EnginePool(threads=threads)).caption([probe])[0]


if __name__ == "__main__":
    main()
