"""Generator families: one file each, which turns a diffusers pipeline into canonical networks. They are found by listing this folder.

A family's file defines `PIPELINE`, the `_class_name` of `model_index.json` that it takes, and `canonical(pipeline,
guidance)`. Everything particular to the family stays in its file; the runtime has no code for any family. A family is
named after its file, with dashes. Other packages offer families as entry points `resynth_fast.families`: see docs/extending.md.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import diffusers

from resynth_fast import plugins
from resynth_fast.errors import ConfigError
from resynth_fast.types import Floats

from .. import checkpoints
from ..canonical import Guidance, TextInput
from ..graphs import Network
from ..weights import rest, widened


@dataclass(frozen=True, kw_only=True)
class Generator:
    """A generator as the parts of a bundle."""

    family: str
    networks: dict[str, Network]
    """`text`, `denoiser`, `decoder`"""
    text_inputs: tuple[TextInput, ...]
    """the tokenizer and length of each input `tokens_i`"""
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


def names() -> list[str]:
    """Names of all families."""
    return sorted(name.replace("_", "-") for name in plugins.listing(__name__))


def load(folder: Path, guidance_scale: float | None, guidance_rescale: float = 0.0, *, halved: bool = True) -> Generator:
    """Load the pipeline in `folder` as a generator.

    With `halved`, its weights stay in float16 between uses (see `weights`). Without a guidance scale, the pipeline's own
    default is used. ConfigError if no family takes the pipeline.
    """
    kind = checkpoints.pipeline_class(folder)
    family = _family(kind, folder)
    pipeline = checkpoints.load(folder, getattr(diffusers, kind), rest if halved else None)
    if guidance_scale is None:
        guidance_scale = float(inspect.signature(pipeline.__call__).parameters["guidance_scale"].default)
    generator: Generator = family.canonical(pipeline, Guidance(scale=guidance_scale, rescale=guidance_rescale))

    def reference(prompts: Sequence[str], latents: Floats, steps: int) -> Floats:
        """Generate with the complete pipeline, including parts that no component uses."""
        with widened(*checkpoints.networks(pipeline)):
            return generator.reference(prompts, latents, steps)

    return replace(generator, reference=reference)


def _family(kind: str, folder: Path) -> ModuleType:
    """The module that takes pipelines of class `kind`. ConfigError if there is none, or more than one."""
    families = [(plugin, plugin.load()) for plugin in plugins.listing(__name__).values()]
    takers = [(plugin, module) for plugin, module in families if kind == module.PIPELINE]
    if not takers:
        raise ConfigError(f"{folder} holds a {kind}; the exporter takes {', '.join(sorted(module.PIPELINE for _, module in families))}")
    if len(takers) > 1:
        raise ConfigError(f"a {kind} is taken by {' and '.join(str(plugin) for plugin, _ in takers)}; uninstall all but one of them")
    return takers[0][1]
