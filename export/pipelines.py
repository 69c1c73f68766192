"""Export a diffusers pipeline on disk as a generator's bundle."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from resynth_fast.bundle import NAME, Bundle
from resynth_fast.errors import BundleError, ConfigError

from . import bundles, checkpoints, families, verify
from .families import Generator
from .verify import Parity

PROMPTS = ("a portrait of a person", "ink drawing portrait of a smiling person with pale skin, white background", "")
PRECISIONS = {"fp16": "float16-stored", "fp32": "float32"}


@checkpoints.quiet()
def export(
    folder: Path,
    to: Path,
    *,
    name: str,
    licence: str,
    steps: Sequence[int],
    guidance_scale: float | None = None,
    guidance_rescale: float = 0.0,
    precision: str = "fp16",
    prompts: Sequence[str] = PROMPTS,
    parity: Parity | None = None,
    **fields: Any,
) -> Bundle:
    """Export the pipeline in `folder` to the bundle `to / name`, with a step table for each number of `steps`.

    Without a guidance scale it is the pipeline's own default. `fields` go into the manifest (`card`, `role`); what is
    measured goes into `parity`. ConfigError if a family or a noise scheduler cannot be exported, BundleError if the
    result differs from torch or from diffusers; nothing is written then.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(f"name {name[:40]!r} must be letters, digits, '.', '_' or '-', at most 100; choose another with --name")
    if precision not in PRECISIONS:
        raise ConfigError(f"precision is {precision!r}; it must be {' or '.join(PRECISIONS)}")
    if not steps or min(steps) < 1:
        raise ConfigError(f"steps is {', '.join(map(str, steps)) or 'empty'}; it must be whole numbers, 1 or more")
    generator = families.load(folder, guidance_scale, guidance_rescale, halved=precision == "fp16")
    if guidance_scale is None and generator.guidance["mode"] == "batch-2" and "turbo" in f"{name} {folder.resolve().name}".lower():
        print(name, "takes the pipeline's own guidance; Turbo models are published for --guidance-scale 0", file=sys.stderr, flush=True)
    height, width = generator.resolution_px
    parity = parity or Parity()
    manifest = {
        "kind": "generator",
        "name": name,
        "family": generator.family,
        "licence": licence,
        "source": {"checkpoint": folder.resolve().name, "sha256": checkpoint_sha256(folder)},
        "latents": dict(zip(("channels", "height", "width"), generator.latents, strict=True)),
        "resolution_px": {"height": height, "width": width},
        "guidance": generator.guidance,
        "lineage": generator.lineage,
        "step_tables": {_resolution(generator): {str(n): generator.table(n) for n in sorted(set(steps))}},
        **fields,
    }

    def check(bundle: Bundle) -> None:
        _compare(bundle, generator, prompts, steps, parity)
        errors = ", ".join(f"{n} steps {error * 255:.2f}/255" for n, error in parity.pictures.items())
        print(name, "pictures against diffusers:", errors, file=sys.stderr, flush=True)

    return bundles.write(to, manifest, generator.networks, generator.text_inputs, check, precision=PRECISIONS[precision], parity=parity)


@checkpoints.quiet()
def verified(bundle: Bundle, folder: Path, prompts: Sequence[str] = PROMPTS) -> Parity:
    """Compare a bundle again with the checkpoint that it was exported from; BundleError if they differ."""
    if bundle.kind != "generator":
        raise ConfigError(f"{bundle.name} is a bundle of kind {bundle.kind!r}; only a generator can be verified against a checkpoint")
    bundle.verify()
    source = bundle.get("source", dict).get("sha256")
    if source != (found := checkpoint_sha256(folder)):
        raise BundleError(
            f"{bundle.name} was exported from a checkpoint with SHA-256 {str(source)[:12]}…, {folder} has {found[:12]}…; "
            "give the checkpoint that it was exported from"
        )
    asked = bundle.guidance
    halved = bundle.components["denoiser"].precision == PRECISIONS["fp16"]
    generator = families.load(folder, asked.scale, asked.rescale, halved=halved)
    tables = bundle.get("step_tables", dict)
    if _resolution(generator) not in tables:
        raise BundleError(
            f"{bundle.name} has step tables for {', '.join(tables)}, but {folder} makes pictures of {_resolution(generator)}; "
            "export it again"
        )
    parity = Parity(components=verify.components(bundle, generator.networks))
    _compare(bundle, generator, prompts, [*map(int, tables[_resolution(generator)])], parity)
    return parity


def _compare(bundle: Bundle, generator: Generator, prompts: Sequence[str], steps: Sequence[int], parity: Parity) -> None:
    """Compare pictures at every number of steps: all prompts at the fewest; one at the others, which add only their step table."""
    fewest, *others = sorted(set(steps))
    parity.pictures[fewest] = verify.pictures(bundle, generator, prompts, fewest)
    parity.pictures.update({n: verify.pictures(bundle, generator, prompts[:1], n) for n in others})


def checkpoint_sha256(folder: Path) -> str:
    """Hash over the names and contents of a checkpoint's weight files."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        with path.open("rb") as file:
            digest.update(f"{path.relative_to(folder).as_posix()} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()


def _resolution(generator: Generator) -> str:
    """The key of a resolution in `step_tables`."""
    return "{}x{}".format(*generator.resolution_px)
