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
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import networks
import numpy as np
import numpy.typing as npt
import shapes
import torch
from bench_racing import picture
from diffusers import DiffusionPipeline, FluxPipeline
from paper import nearest
from roofline import peak

from resynth_fast import Attributor, zoo
from resynth_fast.bundle import Bundle
from resynth_fast.candidates.engine import EngineCandidate
from resynth_fast.engines import EnginePool, graph_of
from resynth_fast.errors import ResynthError
from resynth_fast.export import checkpoints, families
from resynth_fast.extractors.space import open_space
from resynth_fast.memo import RowMemo
from resynth_fast.noise import normal_rows
from resynth_fast.options import Options
from resynth_fast.place import HOST, Place, place_of
from resynth_fast.step import INPUT_SCALE, OUTPUTS, SAMPLES, WIDTH

NAMES = ("sdxl-turbo", "sd15", "flux-schnell")
SIXTEEN_BITS, FLOAT32 = 0.05, 2e-3
"""Error allowed of a network, of its largest value; of pictures of 255 the mean may differ by so much of 255."""
DRIFT = 2e-3  # of the cosine between batches
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

    @property
    def plans(self) -> Path:
        """Where TensorRT's are."""
        return self.work / "plans"

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
        print("not run: torch finds no GPU; --tiny runs on the CPU", file=sys.stderr)
        return
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]) if arguments.tiny else os.cpu_count() or 1)
    with tempfile.TemporaryDirectory() as scratch, checkpoints.quiet():
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
        backends = [s.ours(name), "onnxruntime"] if s.tiny else [s.ours(name), "onnxruntime:cuda", f"tensorrt:{s.plans}"]
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
    inputs: Any = {key: value.to(s.device) for key, value in example.items()}  # an engine takes the arrays of its place
    narrow = {key: value.to(s.dtype(name)) for key, value in inputs.items()}
    module = network.module.to(s.device, s.dtype(name)).eval()
    engine = s.pool(s.ours(name)).get(component)
    peers = {"torch eager": functools.partial(in_torch, module, narrow)}
    if not s.tiny:
        peers["torch.compile"] = functools.partial(in_torch, torch.compile(module), narrow)
    calls: dict[str, Callable[[], Any]] = {s.ours(name): lambda: engine.run(inputs)["model_output"], **peers}
    near(s, name, calls)
    case = f"{name}, {'tiny' if s.tiny else f'depth {shapes.DEPTH:g}'}, {bundle.resolution_px[0]} px, a step"
    limit_us = 1e6 * component.flops / peak_of(s.device, s.dtype(name))
    yield from rows(s, "gpu step", case, calls, [s.ours(name)], list(peers), {"torch.compile": 1.0}, limit_us)


def attribution(s: Setting) -> Iterator[Row]:
    """G3: a picture attributed among all shapes, and the loop over diffusers pipelines; resident, then with half of the memory."""
    shaped = [s.shaped(name) for name in NAMES]
    dtype = s.dtype("flux-schnell")  # one for all, for they share a pool
    space = open_space(zoo.bundle(zoo.TEXTURE))
    sizes = [graph_of(component).size_bytes for _, bundle in shaped for component in bundle.components.values()]
    home = s.device
    for case, budget in (("resident", None), ("swapping", max(sum(sizes) // 2, *sizes))):
        pool = s.pool(s.ours("flux-schnell"), budget_bytes=budget, prefetch=True)
        candidates = [EngineCandidate(bundle, pool) for _, bundle in shaped]
        attributor = Attributor(candidates, Said(), space, pool, Options(references=1, steps=1))
        pipelines = {b.name: (opened(f, dtype, home if budget is None else torch.device("cpu")), b) for f, b in shaped}
        probe = picture(by_us(candidates[0], pool, [1])[0])

        def drawn(pipelines: dict[str, Any] = pipelines, budget: int | None = budget) -> dict[str, list[Pixels]]:
            found = {}
            for name, (pipeline, bundle) in pipelines.items():
                found[name] = by_diffusers(pipeline.to(home), bundle, [0])
                if budget is not None:
                    pipeline.to("cpu")
            return found

        first = {request.candidate: pixels for request, pixels in attributor.make([shapes.PROMPT], [0]).items()}
        for name, [pixels] in drawn().items():
            agree(s, name, {"diffusers": lambda pixels=pixels: [pixels], "ours": lambda name=name, first=first: [first[name]]})  # type: ignore[misc]

        def ours(attributor: Attributor = attributor, probe: Any = probe) -> object:
            attributor.pool.texts = RowMemo()
            return attributor.attribute([probe])

        def theirs(probe: Any = probe, drawn: Callable[[], dict[str, list[Pixels]]] = drawn) -> object:
            return nearest(space, probe.pixels, drawn())

        calls: dict[str, Callable[[], object]] = {"ours": ours, "diffusers": theirs}
        goals = {"diffusers": 2.5 if budget is None else 5.0}
        yield from rows(s, "gpu attribution", f"{len(NAMES)} candidates, {case}", calls, ["ours"], ["diffusers"], goals)


def transfer(s: Setting) -> Iterator[Row]:
    """G4: weights loaded into the device's memory beside a pinned copy of as many bytes."""
    if s.tiny:
        print("skipped: transfer needs a GPU", file=sys.stderr)
        return
    component = s.shaped("sdxl-turbo")[1].components["denoiser"]
    bytes_ = component.size_bytes
    pinned, there = torch.empty(bytes_, dtype=torch.uint8, pin_memory=True), torch.empty(bytes_, dtype=torch.uint8, device=s.device)
    pool = s.pool(s.ours("sdxl-turbo"))

    def load() -> None:
        pool.release(component)
        pool.get(component)

    samples = interleave({"ours": load, "pinned copy": lambda: there.copy_(pinned)}, s.finish, rounds=3)
    ours, copied = (float(np.median(samples[key])) for key in ("ours", "pinned copy"))
    yield measured(
        "gpu transfer", f"weights of SDXL's denoiser, {bytes_ / 1e9:.1f} GB", ours=ours, peer=copied, peer_name="pinned copy", goal=0.85,
        device=s.label,
    )  # fmt: skip


def extractor(s: Setting) -> Iterator[Row]:
    """G5: sixteen pictures through CLIP's ViT-L/14 at 336 px."""
    network = networks.vision(64, 2, 8, 32) if s.tiny else networks.vision(1024, 24, 14, 336)
    component = networks.exported(network, s.work, "extractor")
    dtype, backend = s.dtype("extractor"), s.ours("extractor")
    inputs: Any = {key: value.to(s.device) for key, value in network.example(16).items()}
    module = network.module.to(s.device, dtype)
    engine = s.pool(backend).get(component)
    narrow = {key: value.to(dtype) for key, value in inputs.items()}
    calls: dict[str, Callable[[], Any]] = {
        backend: lambda: engine.run(inputs)[network.outputs[0]],
        "torch eager": functools.partial(in_torch, module, narrow),
    }
    near(s, "extractor", calls)
    limit_us = 1e6 * 16 * component.flops / peak_of(s.device, dtype)
    yield from rows(s, "gpu extractor", f"{'tiny' if s.tiny else 'ViT-L/14-336'}, batch 16", calls, [backend], ["torch eager"], {"torch eager": 2.0}, limit_us)  # fmt: skip


def invariance(s: Setting) -> Iterator[Row]:
    """G7: what a row's features and noise are in batches of 1 to 16; SystemExit where they differ."""
    space = open_space(zoo.bundle(zoo.TEXTURE))
    for name in NAMES[:2]:
        _, bundle = s.shaped(name)
        pool = s.pool(s.ours(name))
        candidate = EngineCandidate(bundle, pool)
        place = place_of(pool.get(bundle.components["denoiser"]))
        seeds = list(range(16))
        noise = torch.as_tensor(place.normal_rows(seeds, seeds, bundle.latents)).cpu().numpy()
        if noise.tobytes() != normal_rows(seeds, seeds, bundle.latents).tobytes():
            raise SystemExit(f"{name}: noise on the device is not the host's bit for bit")
        stepped(place, torch.from_numpy(noise))
        alone = unit(space([by_us(candidate, pool, [seed])[0] for seed in seeds]))
        drift = 0.0
        for batch in (2, 3, 8, 16):
            together = unit(space(by_us(candidate, pool, seeds[:batch])))
            cosines = together @ alone.T
            if cosines.argmax(1).tolist() != seeds[:batch]:
                raise SystemExit(f"{name}: in a batch of {batch} a picture is nearer to another's than to its own alone")
            drift = max(drift, float(1 - cosines.diagonal().min()))
        if not drift <= DRIFT:
            raise SystemExit(f"{name}: cosine drifts by {drift:.1e} between batches, allowed is {DRIFT:.0e}")
        yield measured(
            "gpu invariance", f"{name}, batches 1 to 16", ours=max(drift, 1e-6), peer=DRIFT, peer_name="allowance", goal=1.0,
            unit="of the cosine", device=s.label,
        )  # fmt: skip


def stepped(place: Place, noise: torch.Tensor) -> None:
    """SystemExit unless the step kernel's bits at `place` are the host's."""
    weights = np.zeros((len(noise), WIDTH), np.float32)
    weights[:, [SAMPLES.start, OUTPUTS.start, INPUT_SCALE]] = 0.7, -1.3, 1.0
    found = []
    for each in (HOST, place):
        sample, output = each.here(noise.numpy()), each.here(noise.numpy()[::-1].copy())
        out = each.empty_like(sample)
        each.step(each.here(weights), [sample], [output], out=out)
        found.append(torch.as_tensor(out).cpu().numpy().tobytes())
    if found[0] != found[1]:
        raise SystemExit("a step on the device is not the host's bit for bit")


def plans(s: Setting) -> Iterator[Row]:
    """G8: seconds to build TensorRT's plans, and to load them beside a pinned copy of as many bytes."""
    try:
        from resynth_fast.backends.tensorrt import FLAVOURS, LIBRARIES
        from resynth_fast.export import tensorrt
    except ImportError as error:
        print(f"skipped: plans need TensorRT ({error})", file=sys.stderr)
        return
    if s.tiny:
        print("skipped: plans need a GPU", file=sys.stderr)
        return
    flavour = next(name for name in FLAVOURS if name in LIBRARIES)
    capability = ".".join(map(str, torch.cuda.get_device_capability()))
    for name in NAMES[:2]:
        for part, component in s.shaped(name)[1].components.items():
            start = time.perf_counter()
            try:
                path = tensorrt.plan(s.plans, component, tensorrt.key_of(component, compute_capability=capability, flavour=flavour))
                built = time.perf_counter()
                s.pool(f"tensorrt:{s.plans}").get(component)
            except ResynthError as error:
                print(f"skipped: {name} {part}: {error}", file=sys.stderr)
                continue
            loaded = time.perf_counter()
            pinned = torch.empty(path.stat().st_size, dtype=torch.uint8, pin_memory=True)
            copies = interleave({"": functools.partial(pinned.to, s.device)}, s.finish, rounds=3)[""]
            yield measured(
                "gpu plans", f"{name} {part}, load (built in {built - start:.0f} s)", ours=1e6 * (loaded - built), peer=float(np.median(copies)),
                peer_name="pinned copy", goal=0.5, device=s.label,
            )  # fmt: skip


class Said:
    """A captioner for which every picture shows the prompt."""

    name, sha256 = "prompt", ""

    def caption(self, pictures: Sequence[Pixels]) -> list[str]:
        """See `Captioner.caption`."""
        return [shapes.PROMPT] * len(pictures)


STAGES: dict[str, Callable[[Setting], Iterator[Row]]] = {
    stage.__name__: stage for stage in (export, plans, latency, step, attribution, transfer, extractor, invariance)
}


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
            print(f"skipped: {name}: {error}", file=sys.stderr)
        else:
            yield name, pool


def opened(folder: Path, dtype: torch.dtype, device: torch.device) -> Any:
    """Diffusers' own pipeline, ready to draw."""
    pipeline = DiffusionPipeline.from_pretrained(folder, local_files_only=True, use_safetensors=True, dtype=dtype).to(device)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.vae.register_to_config(force_upcast=False)  # ours decodes in 16 bits too
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


def unit(features: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Rows of length 1."""
    found: npt.NDArray[Any] = features / np.linalg.norm(features, axis=1, keepdims=True)
    return found


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
