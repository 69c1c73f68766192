"""A diffusers pipeline on disk becomes a generator's bundle."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from resynth_fast.bundle import Bundle

from . import bundles, families, verify

PROMPTS = ("a portrait of a person", "ink drawing portrait of a smiling person with pale skin, white background", "")
VERIFIED_STEPS = (4, 8)


def export(
    folder: Path,
    to: Path,
    *,
    name: str,
    licence: str,
    steps: Sequence[int],
    guidance_scale: float,
    prompts: Sequence[str] = PROMPTS,
    **fields: Any,
) -> Bundle:
    """Export the pipeline in `folder` to the bundle `to / name`, with a step table for each number of `steps`.

    `fields` go into the manifest (`card`, `role`). ConfigError if a family or a noise scheduler cannot be exported,
    BundleError if the result differs from torch or from diffusers; nothing is written then.
    """
    generator = families.load(folder, guidance_scale)
    height, width = generator.resolution_px
    manifest = {
        "kind": "generator",
        "name": name,
        "family": generator.family,
        "licence": licence,
        "source": {"checkpoint": folder.name, "sha256": checkpoint_sha256(folder)},
        "latents": dict(zip(("channels", "height", "width"), generator.latents, strict=True)),
        "resolution_px": {"height": height, "width": width},
        "guidance": generator.guidance,
        "lineage": generator.lineage,
        "step_tables": {f"{height}x{width}": {str(n): generator.table(n) for n in steps}},
        **fields,
    }

    def check(bundle: Bundle) -> None:
        compared = [n for n in steps if n in VERIFIED_STEPS] or list(steps)[:1]
        errors = {n: verify.pictures(bundle, generator, prompts, n) for n in compared}
        print(name, "pictures against diffusers:", ", ".join(f"{n} steps {e * 255:.2f}/255" for n, e in errors.items()), flush=True)

    return bundles.write(to, manifest, generator.networks, generator.tokenizers, check)


def checkpoint_sha256(folder: Path) -> str:
    """Hash over the names and contents of a checkpoint's weights."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        digest.update(f"{path.relative_to(folder).as_posix()} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()
