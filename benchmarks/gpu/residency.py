"""G4: transfer of weights to the device, and denoisers that take turns in memory for two."""

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
"""Images of each denoiser before the next one's turn. At 1024 px and four steps, FLUX computes about as long on one image as
its weights take to arrive."""


def transfer(s: Setting) -> Iterator[Row]:
    """Loading weights into the device's memory, against a pinned copy of as many bytes."""
    if s.tiny:
        print("skipped: transfer needs a GPU", file=sys.stderr)
        return
    component = s.shaped(SDXL)[1].components["denoiser"]
    bytes_ = component.size_bytes
    pinned, target = torch.empty(bytes_, dtype=torch.uint8, pin_memory=True), torch.empty(bytes_, dtype=torch.uint8, device=s.device)
    pool = s.pool(s.ours(SDXL))

    def load() -> None:
        pool.release(component)
        pool.get(component)

    samples = interleave({"ours": load, "pinned copy": lambda: target.copy_(pinned)}, s.finish, rounds=3)
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
    """FLUX's denoiser and its siblings in turn: memory for two with prefetch, against memory for all."""
    candidates = list(siblings(s, FLUX, DENOISERS))
    components = [sibling.bundle.components["denoiser"] for sibling in candidates]
    budget = 2 * max(engine_ref(component).size_bytes for component in components)
    pools = {
        "two at a time": s.pool(s.ours(FLUX), budget_bytes=budget, prefetch=True),
        "all resident": s.pool(s.ours(FLUX), prefetch=True),
    }
    for images in IMAGES:
        inputs = _inputs(components[0], candidates[0].bundle.latents, images)
        calls = {name: lambda pool=pool, inputs=inputs: _turns(pool, components, inputs) for name, pool in pools.items()}
        case = f"{DENOISERS} of {s.flux}, {images} images of {STEPS} steps each"
        yield from timed(s, "gpu rotation", case, calls, ["two at a time"], {"all resident": 1 / 1.1}, rounds=s.few)


def _turns(pool: EnginePool, components: Sequence[Component], inputs: dict[str, Any]) -> None:
    """Run each denoiser's steps, one denoiser after the other. As in a walk, every output is checked for finite values."""
    pool.expect(components)
    for component in components:
        with pool.hold(component) as engine:
            device = engine.device
            arrays = {name: device.to_device(values) for name, values in inputs.items()}
            for _ in range(STEPS):
                if not device.all_finite(engine.run(arrays)["model_output"]):
                    raise SystemExit(f"{component.file.path.name}: the output is not finite; every value must be")
    pool.expect([])


def _inputs(component: Component, latents: tuple[int, int, int], images: int) -> dict[str, Any]:
    """Noise as latents and as text states; the time does not depend on the values."""
    rows = list(range(images))
    inputs: dict[str, Any] = {"latents": normal_rows(rows, rows, latents), "timestep": np.full(images, 250.0, np.float32)}
    for name, tensor in component.inputs.items():
        if name.startswith("cond_"):
            inputs[name] = np.random.default_rng(0).standard_normal((images, *map(int, tensor.shape[1:])), np.float32)
    return inputs
