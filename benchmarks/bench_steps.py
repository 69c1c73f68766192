"""Accuracy by the number of denoising steps of references and of probes, on fresh probes of the embedded zoo.

    python benchmarks/bench_steps.py [--json] [--probes 400] [--steps 8,4,2,1,20] [--seed 3] [--keep FILE.npz]

The candidates generate the probes from captions outside every training set; the captioner then captions them. All rows
share captions and noise. The first set of probes has 20 steps and the bundles' own guidance (3 for the three U-Nets, none
for the flow-matching transformer). The other sets have other steps, or one guidance for every candidate. References always
have the bundles' own guidance. Needs the extra `export` for the step tables of the probes with 40 steps.
"""

# First, because it fixes the number of threads, which NumPy reads when it is imported.
from timing import Row, measured, show

# isort: split
import argparse
import itertools
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from resynth_fast import zoo
from resynth_fast.attributor import Attributor
from resynth_fast.bundle import Bundle
from resynth_fast.candidates import ScheduledCandidate
from resynth_fast.candidates.engine import EngineCandidate
from resynth_fast.evaluation import metrics
from resynth_fast.evaluation.zoo import generate_probes, reference_points
from resynth_fast.options import Options
from resynth_fast.scoring.score import score
from resynth_fast.types import Doubles, Integers

DEFAULT = Options().steps
FIRST = "20 steps"
PROBES: Mapping[str, tuple[int, float | None]] = {
    FIRST: (20, None),
    "8 steps": (8, None),
    "40 steps": (40, None),
    "20 steps, guidance 1": (20, 1.0),
    "20 steps, guidance 3": (20, 3.0),
    "20 steps, guidance 5": (20, 5.0),
}
"""Sets of probes: steps, and the guidance of every candidate (None: the bundle's own)."""
FEWER = DEFAULT // 2
"""The other sets of probes are judged with references of this many steps, and of the default."""
COUNTS = (1, 4)
CHUNK, TIMED = 20, 8


@dataclass(frozen=True, slots=True)
class Generated:
    """n probes of one kind."""

    truth: Integers
    """(n,)"""
    prompt: Integers
    """(n,) index of the probe's prompt"""
    captions: Sequence[str]
    points: Doubles
    """(n, d)"""


def main() -> None:
    """Generate, judge and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--probes", type=int, default=400)
    parser.add_argument(
        "--steps",
        default="8,4,2,1,20",
        help=f"steps of the references, separated by commas, in the order of generation; {DEFAULT} is always included",
    )
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="file that stores the scores; only missing ones are computed")
    arguments = parser.parse_args()
    shared = Attributor.open(threads=1)
    attributors = {
        steps: Attributor(
            list(shared.candidates.values()),
            shared.captioner,
            shared.space,
            shared.pool,
            Options(references=max(COUNTS), steps=steps, guidance=(1,)),
        )
        for steps in dict.fromkeys([DEFAULT, *map(int, arguments.steps.split(","))])
    }
    results: dict[str, npt.NDArray[Any]] = {}
    if arguments.keep and arguments.keep.exists():
        with np.load(arguments.keep) as stored:
            results = dict(stored)
    for part in scores(attributors, arguments.probes, arguments.seed, results):
        results |= part
        if arguments.keep:
            np.savez(arguments.keep, allow_pickle=False, **results)
    show([*accuracy(results), *seconds(attributors)], as_json=arguments.json)


def scores(attributors: Mapping[int, Attributor], count: int, seed: int, done: Collection[str]) -> Iterator[dict[str, npt.NDArray[Any]]]:
    """Yield the results that `done` lacks, for one number of steps after the other.

    They are `truth` and `prompt` (n,), and scores (n, C) by "probes|steps of the references|number of references".
    """
    first = next(iter(attributors.values()))
    own = [c for c in first.candidates.values() if isinstance(c, ScheduledCandidate)]
    texts = np.random.default_rng([seed, 0x57E9]).choice(np.array(zoo.prompts()), count, replace=count > len(zoo.prompts())).tolist()

    @cache
    def probes(kind: str) -> Generated:
        steps, guidance = PROBES[kind]
        generators = [EngineCandidate(changed(c.bundle, steps, guidance), first.pool) for c in own]
        # The order is the same for every kind.
        pictures = generate_probes(generators, texts, [i % len(own) for i in range(count)], seed=seed, steps=steps)
        pixels = [probe.pixels for probe in pictures]
        print(f"generated probes of {kind}", file=sys.stderr)
        prompt = np.unique(np.array([probe.caption for probe in pictures]), return_inverse=True)[1]
        return Generated(np.array([probe.truth for probe in pictures]), prompt, first.captioner.caption(pixels), first.space(pixels))

    for steps, attributor in attributors.items():
        kinds = [kind for kind in (PROBES if steps in (FEWER, DEFAULT) else (FIRST,)) if f"{kind}|{steps}|{COUNTS[0]}" not in done]
        if kinds:
            by_kind = {kind: probes(kind) for kind in kinds}
            yield {"truth": by_kind[kinds[0]].truth, "prompt": by_kind[kinds[0]].prompt} | judged(attributor, by_kind)


def judged(attributor: Attributor, probes: Mapping[str, Generated]) -> dict[str, Doubles]:
    """Scores (n, C) by kind of probe, number of steps and number of references."""
    parts: dict[str, list[Doubles]] = {}
    steps, within_trace = attributor.options.steps, attributor.space.whitening.within_trace
    count = len(next(iter(probes.values())).truth)
    for start in range(0, count, CHUNK):
        chunk = range(start, min(start + CHUNK, count))
        by_caption = reference_points(attributor, list(dict.fromkeys(p.captions[i] for p in probes.values() for i in chunk)))
        for (kind, p), k in itertools.product(probes.items(), COUNTS):
            references = [[by_caption[p.captions[i], name][:k] for name in attributor.candidates] for i in chunk]
            result = score(p.points[chunk.start : chunk.stop, None], references, within_trace=within_trace)
            parts.setdefault(f"{kind}|{steps}|{k}", []).append(result.scores[:, 0])
        print(f"references of {steps} steps: {chunk.stop} of {count} probes", end="\r", file=sys.stderr)
    return {key: np.concatenate(rows) for key, rows in parts.items()}


def changed(bundle: Bundle, steps: int, guidance: float | None) -> Bundle:
    """A copy of `bundle` with a table for `steps` steps and, if given, another guidance scale. It serves for probes only."""
    manifest = dict(bundle.manifest)
    [(resolution, tables)] = manifest["step_tables"].items()
    if str(steps) not in tables:
        manifest["step_tables"] = {resolution: tables | {str(steps): step_table(bundle, tables, steps)}}
    if guidance is not None:
        manifest["guidance"] = {"mode": "batch-2", "scale": guidance}
    return Bundle(bundle.folder, manifest)


def step_table(bundle: Bundle, tables: Mapping[str, Any], steps: int) -> dict[str, Any]:
    """A step table of the noise scheduler behind the bundle's own tables. The default table must match the bundle's."""
    from resynth_fast.export.step_table import step_table
    from resynth_fast.export.zoo.assemble import noise_scheduler
    from resynth_fast.export.zoo.recipes import DENOISERS

    denoiser = DENOISERS[bundle.name]
    scheduler = noise_scheduler(denoiser)

    def table(n: int) -> dict[str, Any]:
        levels = {"sigmas": np.linspace(1.0, 1 / n, n)} if denoiser.family == "flux" else {}
        return dict(step_table(scheduler, n, **levels))

    for ours, exported in zip(table(DEFAULT)["rows"], tables[str(DEFAULT)]["rows"], strict=True):
        for key in exported:
            np.testing.assert_allclose(ours[key], exported[key], rtol=1e-5, err_msg=f"{bundle.name}: another noise scheduler")
    return table(steps)


def accuracy(results: Mapping[str, npt.NDArray[Any]]) -> list[Row]:
    """Top-1 by steps against the default on the same probes; then of the other sets of probes against the first set."""
    cases = [tuple(key.split("|")) for key in results if "|" in key]

    def row(kind: str, steps: str, k: str, other: tuple[str, str], name: str) -> Row:
        hit, base = (results[f"{a}|{b}|{k}"].argmax(1) == results["truth"] for a, b in ((kind, steps), other))
        (low, high), change = (metrics.interval(v, results["prompt"]) for v in (hit.astype(float), hit.astype(float) - base))
        text = f"probes of {kind}, {k} references of {steps} steps: {hit.mean():.3f} [{low:.3f}, {high:.3f}]"
        text += f", {_points(hit.mean() - base.mean(), change)}"
        beside = measured("steps", text, ours=hit.mean(), peer=base.mean(), peer_name=name, goal=None, unit="share")
        return replace(beside, ratio=beside.ours / max(beside.peer, 1e-9))  # more is better, unlike with times

    default = str(DEFAULT)
    by_steps = [row(kind, steps, k, (kind, default), f"{DEFAULT} steps") for kind, steps, k in cases if steps != default]
    return by_steps + [row(kind, steps, k, (FIRST, steps), f"probes of {FIRST}") for kind, steps, k in cases if kind != FIRST]


def _points(mean: float, interval: Sequence[float]) -> str:
    return f"{100 * mean:+.2f} points [{100 * interval[0]:+.2f}, {100 * interval[1]:+.2f}]"


def seconds(attributors: Mapping[int, Attributor]) -> list[Row]:
    """Median time of generating one probe's references, the numbers of steps in turn."""
    times: dict[tuple[int, int], list[float]] = {(steps, k): [] for steps in attributors for k in COUNTS}
    for text in zoo.prompts()[: 1 + TIMED]:
        for (steps, k), samples in times.items():
            start = time.perf_counter()
            attributors[steps].references.executor.make([text], k)
            samples.append(time.perf_counter() - start)
    median = {case: float(np.median(samples[1:])) for case, samples in times.items()}  # the first loads the engines
    return [
        measured(
            "steps",
            f"a probe's {k} references of {steps} steps by {len(attributors[steps].references.executor.candidates)} candidates",
            ours=median[steps, k],
            peer=median[DEFAULT, k],
            peer_name=f"{DEFAULT} steps",
            goal=None,
            unit="seconds",
        )
        for steps, k in times
        if steps != DEFAULT
    ]


if __name__ == "__main__":
    main()
