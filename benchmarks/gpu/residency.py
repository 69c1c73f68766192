"""G4: weights on their way to the device, and denoisers of which only two are there at a time."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from timing import Row, interleave, measured

from gpu.rows import timed
from gpu.setting import FLUX, SDXL, Setting
from gpu.siblings import siblings
from resynth_fast.bundle import Component
from resynth_fast.engines.pool import EnginePool, engine_ref
from resynth_fast.kernels.noise import normal_rows

DENOISERS, STEPS = 4, 4
IMAGES = (1, 4)
"""Of each denoiser before the next one's turn: at 1024 px and four steps FLUX computes about as long on one as its weights take to come."""


def transfer(s: Setting) -> Iterator[Row]:
    """Weights loaded into the device's memory beside a pinned copy of as many bytes."""
    if s.tiny:
        print("skipped: transfer needs a GPU", file=sys.stderr)
        return
    component = s.shaped(SDXL)[1].components["denoiser"]
    bytes_ = component.size_bytes
    pinned, there = torch.empty(bytes_, dtype=torch.uint8, pin_memory=True), torch.empty(bytes_, dtype=torch.uint8, device=s.device)
    pool = s.pool(s.ours(SDXL))

    def load() -> None:
        pool.release(component)
        pool.get(component)

    samples = interleave({"ours": load, "pinned copy": lambda: there.copy_(pinned)}, s.finish, rounds=3)
    ours, copied = (float(np.median(samples[key])) for key in ("ours", "pinned copy"))
    yield measured(
        "gpu transfer",
        f"weights of SDXL's denoiser, {bytes_ / 1e9:.1f} GB",
        ours=ours,
        peer=copied,
        peer_name="pinned copy",
        goal=0.85,
        device=s.label,
    )


def rotation(s: Setting) -> Iterator[Row]:
    """FLUX's denoiser and siblings, each used for some images of some steps: memory for two with prefetch, beside memory for all."""
    found = list(siblings(s, FLUX, DENOISERS))
    components = [each.bundle.components["denoiser"] for each in found]
    budget = 2 * max(engine_ref(component).size_bytes for component in components)
    pools = {
        "two at a time": s.pool(s.ours(FLUX), budget_bytes=budget, prefetch=True),
        "all resident": s.pool(s.ours(FLUX), prefetch=True),
    }
    for images in IMAGES:
        inputs = _inputs(components[0], found[0].bundle.latents, images)
        calls = {name: lambda pool=pool, inputs=inputs: _turns(pool, components, inputs) for name, pool in pools.items()}
        case = f"{DENOISERS} of {s.flux}, {images} images of {STEPS} steps each"
        yield from timed(s, "gpu rotation", case, calls, ["two at a time"], {"all resident": 1 / 1.1}, rounds=s.few)


def _turns(pool: EnginePool, components: Sequence[Component], inputs: dict[str, Any]) -> None:
    """Each denoiser's steps, one denoiser after the other; after every step the walk looks at what came out."""
    pool.expect(components)
    for component in components:
        with pool.hold(component) as engine:
            device = engine.device
            here = {name: device.to_device(values) for name, values in inputs.items()}
            for _ in range(STEPS):
                if not device.all_finite(engine.run(here)["model_output"]):
                    raise SystemExit(f"{component.file.path.name}: values that are not finite")
    pool.expect([])


def _inputs(component: Component, latents: tuple[int, int, int], images: int) -> dict[str, Any]:
    """Noise as latents and as text states; the numbers change no time."""
    rows = list(range(images))
    found: dict[str, Any] = {"latents": normal_rows(rows, rows, latents), "timestep": np.full(images, 250.0, np.float32)}
    for name, tensor in component.inputs.items():
        if name.startswith("cond_"):
            found[name] = np.random.default_rng(0).standard_normal((images, *map(int, tensor.shape[1:])), np.float32)
    return found
