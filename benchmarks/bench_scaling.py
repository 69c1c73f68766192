"""Time per picture (probe x candidate x reference) as the number of each of the three grows: it should not rise.

    python benchmarks/bench_scaling.py --json [--plot FILE.svg] [--rounds 5] [--quick]

Ours alone, one thread, warm. The sizes of an axis are measured in turn; figures are medians over the rounds. The time includes
captions, features and scores. The candidates are copies of zoo-sd and zoo-flux in equal numbers. Their denoisers' weights
are perturbed by a hundredth, so that no two share an engine; the content of their pictures does not matter here. Needs the
extra `export`.
"""

# First, because it fixes the number of threads, which NumPy reads when it is imported.
from timing import Row, measured, show

# isort: split
import argparse
import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from bench_end_to_end import generated
from onnx import numpy_helper

from resynth_fast import Attributor, zoo
from resynth_fast.engines.text_cache import TextCache

STEPS = 8
FLAT = 0.95
"""Smallest acceptable ratio of the time per picture at the smallest size to that at another: 5 % is left for noise."""
AXES: Mapping[str, tuple[tuple[int, int, int], ...]] = {
    "probes": tuple((n, 4, 1) for n in (1, 2, 4, 8, 16, 32, 64)),
    "candidates": tuple((1, n, 2) for n in (2, 4, 8)),
    "references": tuple((1, 4, n) for n in (1, 2, 4, 8)),
}
"""(probes, candidates, references) of each size."""
QUICK: Mapping[str, tuple[tuple[int, int, int], ...]] = {"probes": ((1, 2, 1), (2, 2, 1))}
ORIGINALS = ("zoo-sd", "zoo-flux")
Samples = Mapping[str, Mapping[tuple[int, int, int], Sequence[float]]]


def main() -> None:
    """Copy, measure, print and plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--plot", type=Path, help="write a plot to this file (extra: plots)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="smoke test: two sizes, one round, one step")
    arguments = parser.parse_args()
    axes, rounds, steps = (QUICK, 1, 1) if arguments.quick else (AXES, arguments.rounds, STEPS)
    sizes = [size for axis in axes.values() for size in axis]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "pictures").mkdir()
        files = [p.path for p in generated(folder / "pictures", max(s[0] for s in sizes), 0, steps)]
        copies = copied(folder, max(s[1] for s in sizes))
        samples = {axis: measure(points, files, copies, rounds, steps) for axis, points in axes.items()}
    if arguments.plot:
        plot(samples, arguments.plot)
    show(rows(samples), as_json=arguments.json)


def copied(folder: Path, count: int) -> list[Path]:
    """`count` bundles, copies of the originals in turn, each with its own denoiser."""
    shutil.copytree(zoo.FOLDER / "objects", folder / "objects")
    return [_copy(ORIGINALS[i % len(ORIGINALS)], folder / f"copy-{i}", i) for i in range(count)]


def _copy(name: str, to: Path, seed: int) -> Path:
    shutil.copytree(zoo.FOLDER / name, to)
    manifest = json.loads((to / "bundle.json").read_text())
    entry = manifest["components"]["denoiser"]
    model = onnx.load_from_string(zoo.bundle(name).components["denoiser"].file.read())
    rng = np.random.default_rng(seed)
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype.kind == "f" and values.ndim > 1:
            moved = values * (1 + 0.01 * rng.standard_normal(values.shape))
            tensor.CopyFrom(numpy_helper.from_array(moved.astype(values.dtype), tensor.name))
    content = model.SerializeToString()
    (to / "denoiser.onnx").write_bytes(content)
    entry.update(file="denoiser.onnx", sha256=hashlib.sha256(content).hexdigest())
    (to / "bundle.json").write_text(json.dumps(manifest | {"name": to.name}))
    return to


def measure(
    points: Sequence[tuple[int, int, int]], files: Sequence[Path], copies: Sequence[Path], rounds: int, steps: int
) -> dict[tuple[int, int, int], list[float]]:
    """Milliseconds per picture, for each size and round."""
    attributors = {
        (c, k): Attributor.open([str(copy) for copy in copies[:c]], references=k, steps=steps, threads=1)
        for c, k in {point[1:] for point in points}
    }
    samples: dict[tuple[int, int, int], list[float]] = {point: [] for point in points}
    for number in range(-1, rounds):  # the first warms up
        for point in points if number % 2 else reversed(points):
            probes, candidates, references = point
            attributor = attributors[candidates, references]
            attributor.pool.text_cache = TextCache()  # else the captions would be encoded already
            start = time.perf_counter()
            verdicts = attributor(files[:probes])
            ms = 1000 * (time.perf_counter() - start)
            pictures = len({v.caption for v in verdicts}) * candidates * references  # probes with equal captions share references
            if number >= 0:
                samples[point].append(ms / pictures)
    return samples


def rows(samples: Samples) -> list[Row]:
    """Each size compared with the smallest of its axis."""
    comparisons = []
    for axis, by_size in samples.items():
        smallest, *others = by_size
        for size in others:
            ours, peer = by_size[size], by_size[smallest]
            comparisons.append(
                measured(
                    "scaling",
                    f"{axis} {_names(smallest)} to {_names(size)}",
                    ours=float(np.median(ours)),
                    ours_p90=float(np.percentile(ours, 90)),
                    peer=float(np.median(peer)),
                    peer_p90=float(np.percentile(peer, 90)),
                    peer_name=f"at {_names(smallest)}",
                    ratio=float(np.median(np.divide(peer, ours))),
                    goal=FLAT,
                    unit="ms a picture",
                )
            )
    return comparisons


def _names(size: tuple[int, int, int]) -> str:
    return "x".join(map(str, size))


def plot(samples: Samples, to: Path) -> None:
    """Plot milliseconds per picture against size, one panel per axis, with the range of the rounds shaded."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(samples), figsize=(9, 2.8), sharey=True, squeeze=False, layout="constrained")
    for panel, (axis, by_size) in zip(panels[0], samples.items(), strict=True):
        number = list(AXES).index(axis)
        sizes = [point[number] for point in by_size]
        values = np.array(list(by_size.values()))
        panel.plot(sizes, np.median(values, axis=1), marker="o")
        panel.fill_between(sizes, values.min(1), values.max(1), alpha=0.2)
        panel.set_xscale("log", base=2)
        panel.set_xticks(sizes, [str(size) for size in sizes])
        panel.set_xlabel(axis)
    panels[0][0].set_ylim(0, 1.1 * max(value for by_size in samples.values() for values in by_size.values() for value in values))
    panels[0][0].set_ylabel("ms a picture")
    figure.savefig(to, metadata={"Date": None})


if __name__ == "__main__":
    main()
