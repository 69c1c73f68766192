"""G1, G2, G5: pictures of one step, a single step, and the encoding of pictures, against eager torch and torch.compile."""

from __future__ import annotations

import functools
import gc
from collections.abc import Callable, Iterator
from typing import Any

import networks
import torch
from timing import Row

from gpu.peers import by_diffusers, by_us, in_torch, pipelines, usable
from gpu.rows import agree, near, timed
from gpu.setting import FLUX, NAMES, SD15, SDXL, Setting
from resynth_fast.candidates.engine import EngineCandidate
from resynth_fast.export import families

PICTURE_US = {(SDXL, 1): 20e3, (SDXL, 8): 10e3}
"""Goals G1 and G2 for the time of a picture, by pipeline and batch."""
STEP_US = 130e3
"""Goal G2 for a step of the whole FLUX in bfloat16."""


def export(s: Setting) -> Iterator[Row]:
    """Make every pipeline's checkpoint and bundle for the later stages. Yields no rows."""
    if s.tiny:
        gc.disable()  # garbage collection takes a quarter of the time of small exports; large ones need the memory back
    for name in NAMES:
        s.shaped(name)
    gc.enable()
    yield from ()


def latency(s: Setting) -> Iterator[Row]:
    """G1, G2: pictures of one step, one or eight per call. Times are per picture."""
    for name in (SDXL, SD15):
        _, bundle = s.shaped(name)
        peers = {key: functools.partial(by_diffusers, pipeline, bundle) for key, pipeline in pipelines(s, name)}
        backends = [s.ours(name), "onnxruntime"] if s.tiny else [s.ours(name), "onnxruntime:cuda", f"tensorrt:{s.plans}"]
        ours = {b: functools.partial(by_us, EngineCandidate(bundle, pool), pool) for b, pool in usable(s, backends, bundle)}
        flops = sum(component.flops for component in bundle.components.values())
        for batch in (1, 8):
            calls = {key: functools.partial(draw, range(batch)) for key, draw in {**peers, **ours}.items()}
            agree(s, name, calls)
            yield from timed(
                s,
                "gpu latency",
                f"{name}, batch {batch}, a picture",
                calls,
                list(ours),
                {"diffusers": 3.0, "torch.compile": 2.0} if (name, batch) == (SDXL, 1) else {},
                limit_us=s.limit_us(flops, name),
                allowance_us=PICTURE_US.get((name, batch)),
                per=batch,
            )


def step(s: Setting) -> Iterator[Row]:
    """G2: one denoiser call of FLUX.1-schnell in bfloat16. The goal is scaled by the share of layers."""
    folder, bundle = s.shaped(FLUX)
    component = bundle.components["denoiser"]
    network = families.load(folder, 1.0, halved=not s.tiny).networks["denoiser"]
    example = network.example(1) | {"timestep": torch.full((1,), 250.0)}  # the same number in bfloat16
    yield from _network(
        s,
        "gpu step",
        f"{s.flux}, {bundle.resolution_px[0]} px, a step",
        FLUX,
        network,
        component,
        example,
        {"torch.compile": 1.0},
        STEP_US * s.depth,
    )


def extractor(s: Setting) -> Iterator[Row]:
    """G5: sixteen pictures through CLIP's ViT-L/14 at 336 px."""
    network = networks.vision(64, 2, 8, 32) if s.tiny else networks.vision(1024, 24, 14, 336)
    component = networks.exported(network, s.work, "extractor")
    case = f"{'tiny' if s.tiny else 'ViT-L/14-336'}, batch 16"
    yield from _network(s, "gpu extractor", case, "extractor", network, component, network.example(16), {"torch eager": 2.0})


def _network(
    s: Setting,
    bench: str,
    case: str,
    name: str,
    network: Any,
    component: Any,
    example: dict[str, torch.Tensor],
    goals: dict[str, float],
    allowance_us: float | None = None,
) -> Iterator[Row]:
    """Rows of one network, with its inputs on the device."""
    backend, dtype, output = s.ours(name), s.dtype(name), network.outputs[0]
    inputs: Any = {key: value.to(s.device) for key, value in example.items()}  # an engine takes arrays on its device
    narrow = {key: value.to(dtype) for key, value in inputs.items()}
    module = network.module.to(s.device, dtype).eval()
    engine = s.pool(backend).get(component)
    calls: dict[str, Callable[[], Any]] = {
        backend: lambda: engine.run(inputs)[output],
        "torch eager": functools.partial(in_torch, module, narrow),
    }
    if not s.tiny:
        calls["torch.compile"] = functools.partial(in_torch, torch.compile(module), narrow)
    near(s, name, calls)
    rows = len(next(iter(example.values())))
    yield from timed(s, bench, case, calls, [backend], goals, limit_us=s.limit_us(rows * component.flops, name), allowance_us=allowance_us)
