"""Pipelines shaped as published ones, random weights, on a GPU: diffusers, torch.compile, our backends; `--tiny`: the same on the CPU.

    python benchmarks/bench_gpu.py [--json] [--stage latency ...] [--work DIR]     on a GPU; DIR keeps what was exported
    python benchmarks/bench_gpu.py --tiny                                         tiny pipelines, one thread: shows that it works

Results are compared before anything is timed. Text is encoded in every call by all. The limit is the components' arithmetic
over the device's peak (`roofline.py`).
"""

# First, because it fixes the number of threads, which NumPy reads when it is imported.
from timing import Row, interleave, measured, show

# isort: split
import argparse
import functools
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import shapes
import torch
from diffusers import DiffusionPipeline, FluxPipeline
from roofline import peak

from resynth_fast.bundle import Bundle
from resynth_fast.candidates.engine import EngineCandidate
from resynth_fast.engines import EnginePool
from resynth_fast.errors import ResynthError
from resynth_fast.export import families
from resynth_fast.memo import RowMemo
from resynth_fast.noise import normal_rows

NAMES = ("sdxl-turbo", "sd15", "flux-schnell")
SIXTEEN_BITS, FLOAT32 = 0.05, 2e-3
"""Error allowed of a network, of its largest value; of pictures of 255 the mean may differ by so much of 255."""
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Where to measure: full pipelines on a GPU in 16 bits, or tiny ones on the CPU in float32."""

    tiny: bool
    work: Path

    @property
    def device(self) -> torch.device:
        return torch.device("cpu" if self.tiny else "cuda")

    @property
    def rounds(self) -> int:
        return 3 if self.tiny else 15

    @property
    def tolerance(self) -> float:
        return FLOAT32 if self.tiny else SIXTEEN_BITS

    @property
    def label(self) -> str | None:
        return None if self.tiny else torch.cuda.get_device_name()

    def dtype(self, name: str) -> torch.dtype:
        return torch.float32 if self.tiny else torch.bfloat16 if name.startswith("flux") else torch.float16

    def ours(self, name: str) -> str:
        """Our backend in the precision of the peers."""
        return "torch" if self.tiny else f"torch:cuda,{'bf16' if name.startswith('flux') else 'fp16'}"

    def pool(self, backend: str, **settings: Any) -> EnginePool:
        return EnginePool(backend, threads=torch.get_num_threads(), strict=True, **settings)

    def shaped(self, name: str) -> tuple[Path, Bundle]:
        return shapes.exported(name, self.work, small=self.tiny)

    def finish(self) -> None:
        if not self.tiny:
            torch.cuda.synchronize()


def main() -> None:
    """Measure and print, a stage after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="tiny pipelines on the CPU")
    parser.add_argument("--stage", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--work", type=Path, help="folder for checkpoints and bundles, which stay; else a temporary one")
    arguments = parser.parse_args()
    if not arguments.tiny and not torch.cuda.is_available():
        raise SystemExit("not run: torch finds no GPU; --tiny runs on the CPU")
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]) if arguments.tiny else os.cpu_count() or 1)
    with tempfile.TemporaryDirectory() as scratch:
        setting = Setting(tiny=arguments.tiny, work=arguments.work or Path(scratch))
        for stage in arguments.stage:
            show(STAGES[stage](setting), as_json=arguments.json)


def export(s: Setting) -> Iterator[Row]:
    """Every pipeline's checkpoint and bundle, for the stages behind; no rows."""
    for name in NAMES:
        s.shaped(name)
    yield from ()


def latency(s: Setting) -> Iterator[Row]:
    """G1, G2: a picture of one step, alone and eight together (times are of a picture)."""
    for name in NAMES[:2]:
        folder, bundle = s.shaped(name)
        eager = opened(folder, s.dtype(name), s.device)
        peers = {"diffusers": functools.partial(by_diffusers, eager, bundle)}
        if not s.tiny:
            compiled = opened(folder, s.dtype(name), s.device)
            compiled.unet = torch.compile(compiled.unet)
            peers["torch.compile"] = functools.partial(by_diffusers, compiled, bundle)
        backends = [s.ours(name), "onnxruntime"] if s.tiny else [s.ours(name), "onnxruntime:cuda", "tensorrt"]
        ours = {b: functools.partial(by_us, EngineCandidate(bundle, pool), pool) for b, pool in usable(s, backends, bundle)}
        flops = sum(component.flops for component in bundle.components.values())
        for batch in (1, 8):
            calls = {key: functools.partial(draw, range(batch)) for key, draw in {**peers, **ours}.items()}
            agree(s, name, calls)
            goals = {"diffusers": 3.0, "torch.compile": 2.0} if (name, batch) == ("sdxl-turbo", 1) else {}
            limit_us = 1e6 * flops / peak_of(s.device, s.dtype(name))
            yield from rows(s, "gpu latency", f"{name}, batch {batch}, a picture", calls, list(ours), list(peers), goals, limit_us, batch)


def step(s: Setting) -> Iterator[Row]:
    """G2: one denoiser call of FLUX.1-schnell in bfloat16."""
    name = "flux-schnell"
    folder, bundle = s.shaped(name)
    component = bundle.components["denoiser"]
    network = families.load(folder, 1.0, halved=not s.tiny).networks["denoiser"]
    example = network.example(1) | {"timestep": torch.full((1,), 250.0)}  # the same number in bfloat16
    inputs = {key: value.to(s.device) for key, value in example.items()}
    narrow = {key: value.to(s.dtype(name)) for key, value in inputs.items()}
    module = network.module.to(s.device, s.dtype(name)).eval()
    engine = s.pool(s.ours(name)).get(component)
    peers = {"torch eager": functools.partial(in_torch, module, narrow)}
    if not s.tiny:
        peers["torch.compile"] = functools.partial(in_torch, torch.compile(module), narrow)
    calls = {s.ours(name): lambda: engine.run(inputs)["model_output"], **peers}
    near(s, name, calls)
    case = f"{name}, {'tiny' if s.tiny else f'depth {shapes.DEPTH:g}'}, {bundle.resolution_px[0]} px, a step"
    limit_us = 1e6 * component.flops / peak_of(s.device, s.dtype(name))
    yield from rows(s, "gpu step", case, calls, [s.ours(name)], list(peers), {"torch.compile": 1.0}, limit_us)


STAGES: dict[str, Callable[[Setting], Iterator[Row]]] = {"export": export, "latency": latency, "step": step}


def rows(
    s: Setting, bench: str, case: str, calls: Mapping[str, Callable[[], object]], ours: Sequence[str], peers: Sequence[str],
    goals: Mapping[str, float], limit_us: float | None = None, per: int = 1,
) -> Iterator[Row]:  # fmt: skip
    """A row for each of our backends and each peer, timed turn by turn; `per`: what a call's time is divided by."""
    samples = interleave(calls, s.finish, rounds=s.rounds)
    median, p90 = ({key: float(np.percentile(times, q)) / per for key, times in samples.items()} for q in (50, 90))
    for backend in ours:
        for peer in peers:
            yield measured(
                bench, f"{case}, {backend}", ours=median[backend], ours_p90=p90[backend], peer=median[peer], peer_p90=p90[peer],
                peer_name=peer, limit_pct=None if limit_us is None else 100 * limit_us / median[backend], device=s.label,
                goal=goals.get(peer) if backend == ours[0] and not s.tiny else None,
            )  # fmt: skip


def usable(s: Setting, wanted: Iterable[str], bundle: Bundle) -> Iterator[tuple[str, EnginePool]]:
    """The backends that are installed and load the bundle; of the others stderr tells."""
    for name in wanted:
        try:
            pool = s.pool(name)
            for component in bundle.components.values():
                pool.get(component)
        except ResynthError as error:
            print(f"skipped: {error}", file=sys.stderr)
        else:
            yield name, pool


def opened(folder: Path, dtype: torch.dtype, device: torch.device) -> Any:
    """Diffusers' own pipeline, ready to draw."""
    pipeline = DiffusionPipeline.from_pretrained(folder, local_files_only=True, use_safetensors=True, torch_dtype=dtype).to(device)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@torch.inference_mode()
def by_diffusers(pipeline: Any, bundle: Bundle, seeds: Sequence[int]) -> list[Pixels]:
    """Pictures (H, W, 3) of one step without guidance, from our noise."""
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
    """The same by the runtime, which is made to forget the encoded text."""
    pool.texts = RowMemo()
    return candidate.make([shapes.PROMPT] * len(seeds), seeds, 1)


@torch.inference_mode()
def in_torch(module: Callable[..., torch.Tensor], inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """A forward pass."""
    return module(**inputs)


def agree(s: Setting, what: str, calls: Mapping[str, Callable[[], list[Pixels]]]) -> None:
    """The pictures of all are those of the first but for rounding, else SystemExit."""
    made = {key: np.stack(call()).astype(np.float64) / 255 for key, call in calls.items()}
    first = next(iter(made))
    for key, pictures in made.items():
        error = float(np.abs(pictures - made[first]).mean())
        if not error <= s.tolerance:
            raise SystemExit(f"{what}: pictures by {key} differ from those by {first} by {error:.1e}, allowed is {s.tolerance:.0e}")


def near(s: Setting, what: str, calls: Mapping[str, Callable[[], Any]]) -> None:
    """The arrays of all are those of the first but for rounding, else SystemExit."""
    found = {key: torch.as_tensor(call()).float().cpu() for key, call in calls.items()}
    first = next(iter(found))
    for key, values in found.items():
        error = float((values - found[first]).abs().max() / found[first].abs().max())
        if not error <= s.tolerance:
            raise SystemExit(f"{what} by {key} differs from {first} by {error:.1e}, allowed is {s.tolerance:.0e}")


@functools.cache
def peak_of(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s."""
    return peak(device, dtype)[0]


if __name__ == "__main__":
    main()
