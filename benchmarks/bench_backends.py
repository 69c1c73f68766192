"""Compare every installed backend with torch, on the same components and inputs.

    python benchmarks/bench_backends.py [--json] [--threads 1] [--batches 1,4] [--only unet] [--compile]
    python benchmarks/bench_backends.py --labels 200

Torch runs eagerly in inference mode with its fused attention. With `--compile` it also runs by torch.compile, which takes
up to minutes per component. A backend's output is compared with torch's before anything is timed. The limit is the faster
of NumPy's and torch's float32 matrix products, timed in turn with the rest; bfloat16 may exceed it.

`--labels N` times nothing. The zoo generates N probes once, every backend attributes them (two references, eight steps),
and the verdicts are compared with those of ONNX Runtime.
"""

# First, because it fixes the number of threads, which NumPy reads when it is imported.
from timing import ROUNDS, Row, interleave, measured, show

# isort: split
import argparse
import functools
import itertools
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import networks
import numpy as np
import numpy.typing as npt
import torch
from bench_racing import picture
from roofline import flops

from resynth_fast import Attributor, backends, zoo
from resynth_fast.bundle import Component
from resynth_fast.candidates import ScheduledCandidate
from resynth_fast.engines.pool import EnginePool
from resynth_fast.errors import ResynthError
from resynth_fast.evaluation.zoo import generate_probes
from resynth_fast.export.graphs import Network, Tensors
from resynth_fast.types import Verdict

BACKENDS = ("onnxruntime", "openvino", "openvino:bf16", "torch")
TOLERANCE, NARROW_TOLERANCE = 1e-4, 1e-1
"""Largest allowed error relative to the largest output: in float32, and in 16 bits (backends whose variant ends in 16)."""
GOALS = {
    "unet": {"onnxruntime": 1.6, "openvino:bf16": 2.3},
    "denoiser": {"onnxruntime": 1.6},
    "encoder": {"onnxruntime": 1.6},
    "text": {"onnxruntime": 1.6},
    "decoder": {"onnxruntime": 1.05},
}
"""Smallest acceptable ratio to eager torch at batch 1, by the last word of a component's name and by backend."""
SIDE = 1024  # rows and columns of the matrices whose product is the limit
PROBE_STEPS, AGREEMENT = 20, 0.99

Run = Callable[[], npt.NDArray[np.float32]]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--threads", type=int, default=int(os.environ["OMP_NUM_THREADS"]))
    parser.add_argument("--batches", default="1,4")
    parser.add_argument("--backends", nargs="+", default=BACKENDS)
    parser.add_argument("--only", default="", help="run only components whose names contain this")
    parser.add_argument("--rounds", type=int, default=ROUNDS // 2)
    parser.add_argument("--compile", action="store_true", help="also time torch.compile")
    parser.add_argument("--labels", type=int, help="instead compare the verdicts on this many probes")
    arguments = parser.parse_args()
    if arguments.threads != int(os.environ["OMP_NUM_THREADS"]):  # NumPy has read it
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "OMP_NUM_THREADS": str(arguments.threads)})
    torch.set_num_threads(arguments.threads)
    pools = dict(usable(arguments.backends, arguments.threads))
    if arguments.labels:
        show(labels(list(pools), arguments.labels, arguments.threads), as_json=arguments.json)
        return
    with tempfile.TemporaryDirectory() as folder:
        for name, make in components(Path(folder)).items():
            if arguments.only in name:
                show(compared(name, *make(), pools, arguments), as_json=arguments.json)


def usable(wanted: Sequence[str], threads: int) -> Iterator[tuple[str, EnginePool]]:
    """The pools of the installed backends. The others are reported on stderr."""
    for name in wanted:
        try:
            yield name, EnginePool(name, threads=threads, strict=True)
        except ResynthError as error:
            print(f"left out: {error}", file=sys.stderr)


def components(folder: Path) -> dict[str, Callable[[], tuple[Network, Component]]]:
    """Name → function that makes a torch module and its exported twin.

    Networks with random weights are exported into `folder`. The last word of the name selects the goal.
    """

    def random(network: Network) -> tuple[Network, Component]:
        return network, networks.exported(network, folder)

    def of_zoo(name: str, part: str) -> tuple[Network, Component]:
        return networks.of_zoo(name)[part], zoo.bundle(name).components[part]

    random_networks = {"64 M unet": lambda: random(networks.unet_64m()), "ViT-B/16 encoder": lambda: random(networks.vision())}
    return random_networks | {f"{name} {part}": partial(of_zoo, name, part) for name, parts in networks.ZOO.items() for part in parts}


def compared(
    name: str, network: Network, component: Component, pools: Mapping[str, EnginePool], arguments: argparse.Namespace
) -> Iterator[Row]:
    """A row for each batch, backend and peer. All contestants of a batch are timed in turn."""
    modules: dict[str, Callable[..., Any]] = {"torch eager": network.module}
    if arguments.compile:
        modules["torch.compile"] = torch.compile(network.module)
    engines = {backend: pool.get(component) for backend, pool in pools.items()}
    for batch in map(int, arguments.batches.split(",")):
        example = network.example(batch)
        peers = {peer: in_torch(module, example) for peer, module in modules.items()}
        ours = {backend: on_engine(engine, example, network.outputs[0]) for backend, engine in engines.items()}
        expected = peers["torch eager"]()
        errors = {
            b: error_of(run(), expected, f"{name} by {b}", NARROW_TOLERANCE if b.endswith("16") else TOLERANCE) for b, run in ours.items()
        }
        samples = interleave({**ours, **peers, **limits()}, rounds=arguments.rounds)
        median, p90 = ({key: float(np.percentile(times, q)) for key, times in samples.items()} for q in (50, 90))
        best_us = min(median[key] for key in limits()) * flops(network.module, example) / (2 * SIDE**3)
        for backend, peer in itertools.product(ours, peers):
            yield measured(
                "backends",
                f"{name}, batch {batch}, {backend}",
                ours=median[backend],
                ours_p90=p90[backend],
                peer=median[peer],
                peer_p90=p90[peer],
                peer_name=peer,
                limit_pct=100 * best_us / median[backend],
                error=errors[backend],
                goal=GOALS[name.split()[-1]].get(backend) if (batch, peer) == (1, "torch eager") else None,
            )
    for pool in pools.values():
        pool.release(component)


def in_torch(module: Callable[..., Any], example: Tensors) -> Run:
    """A forward pass that returns its first output as an array."""

    def call() -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            outputs = module(**example)
        array: npt.NDArray[np.float32] = (outputs if isinstance(outputs, torch.Tensor) else outputs[0]).numpy()
        return array

    return call


def on_engine(engine: backends.Engine, example: Tensors, output: str) -> Run:
    """A forward pass by a backend, called as the runtime calls it."""
    inputs = {key: value.numpy() for key, value in example.items()}
    return lambda: engine.run(inputs)[output]


def error_of(actual: npt.NDArray[np.float32], expected: npt.NDArray[np.float32], what: str, tolerance: float) -> float:
    """Largest difference, relative to the largest value. SystemExit if it exceeds `tolerance` or is NaN."""
    error = float(np.abs(actual - expected).max() / np.abs(expected).max())
    if not error <= tolerance:
        raise SystemExit(f"{what} differs from torch by {error:.1e}, allowed is {tolerance:.0e}")
    return error


@functools.cache
def limits() -> Mapping[str, Callable[[], object]]:
    """Matrix products of size SIDE, by NumPy's BLAS and by torch's."""
    square = np.random.default_rng(0).standard_normal((SIDE, SIDE), np.float32)
    tensor = torch.from_numpy(square)
    return {"numpy's limit": lambda: square @ square, "torch's limit": lambda: tensor @ tensor}


def labels(names: Sequence[str], count: int, threads: int) -> Iterator[Row]:
    """The share of probes on which each backend's verdict agrees with the first backend's."""
    attributors = {name: Attributor.open(backend=name, threads=threads, strict_backend=True, references=2, steps=8) for name in names}
    first, *others = names
    generators = [c for c in attributors[first].references.executor.candidates.values() if isinstance(c, ScheduledCandidate)]
    rng = np.random.default_rng(0)
    captions = rng.choice(np.array(zoo.prompts()), count, replace=count > len(zoo.prompts())).tolist()
    probes = generate_probes(generators, captions, [i % len(generators) for i in range(count)], seed=0, steps=PROBE_STEPS)
    pictures = [picture(probe.pixels) for probe in probes]
    verdicts = {name: attributor(pictures) for name, attributor in attributors.items()}
    for name in others:
        pairs = list(zip(verdicts[name], verdicts[first], strict=True))
        largest = max(largest_difference(a, b) for a, b in pairs)
        for what, same in (
            ("first candidate", [a.candidates[0].name == b.candidates[0].name for a, b in pairs]),
            ("label", [a.label == b.label for a, b in pairs]),
            ("status", [a.status == b.status for a, b in pairs]),
        ):
            share = float(np.mean(same))
            yield measured(
                "backends",
                f"{count} probes, same {what}, {name}; probabilities differ by {largest:.3f} at most",
                ours=share,
                peer=1.0,
                peer_name=first,
                goal=AGREEMENT,
                unit="share",
                ratio=share,
            )


def largest_difference(a: Verdict, b: Verdict) -> float:
    """Largest difference between the two probabilities of one candidate."""
    theirs = {candidate.name: candidate.probability for candidate in b.candidates}
    return max(abs(candidate.probability - theirs[candidate.name]) for candidate in a.candidates)


if __name__ == "__main__":
    main()
