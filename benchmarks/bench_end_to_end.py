"""Warm time from picture file to verdict: ours against the naive diffusers loop, for single probes and for a stream of probes.

    python benchmarks/bench_end_to_end.py --json [--pipelines DIR] [--probes 200] [--threaded 24] [--stream 504] [--quick]

Fresh probes of the embedded zoo (20 steps, captions outside every training set); four candidates, four references of eight
steps, the same noise. Each contestant is a process of its own. They work one at a time, with one thread by default. The
loop gets our caption without computing it; ours also estimates its confidence from three perturbed copies of the probe.
Ratios are medians of pairs; the limit is the share of our time that engines alone take. The benchmark takes about 25
minutes on two cores. bench_cold.py measures the cold start. Pipelines are restored from the zoo unless a folder is named.
"""

# First, because it fixes the number of threads, which NumPy reads when it is imported.
from timing import Row, measured, show

# isort: split
import argparse
import dataclasses
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from bench_cold import restored
from paper import Answer, nearest
from PIL import Image
from turns import Contestants, Loop, Ours, Probe, Turn

from resynth_fast import zoo
from resynth_fast.report.batch import CHUNK

NAIVE, BATCHED = "naive diffusers loop", "diffusers, references batched"
WARM, WARM_BATCHED, MEMORY = 2.5, 1.4, 2.0
BF16, UNCHANGED, TWO_THREADS, STREAM = 4.0, 0.99, 3.3, 10.0
EVERY = 2
"""The stream's partial configurations run on every EVERY-th chunk. The loop runs on every chunk, for one probe."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How many probes each part uses, and how many references and steps."""

    probes: int
    threaded: int
    stream: int
    references: int = 4
    steps: int = 8
    probe_steps: int = 20

    @property
    def case(self) -> str:
        return f"{self.references} references x {self.steps} steps"


QUICK = Size(probes=2, threaded=0, stream=2, references=1, steps=2, probe_steps=2)


def main() -> None:
    """Generate probes, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--pipelines", type=Path, help="folder written by `python -m resynth_fast.export.zoo restore`")
    parser.add_argument(
        "--probes", type=int, default=200, help="probes one by one, compared with both loops; 0 skips this part, and likewise below"
    )
    parser.add_argument("--threaded", type=int, default=24, help="probes with two threads each")
    parser.add_argument("--stream", type=int, default=504, help=f"probes of the stream, {CHUNK} at a time")
    parser.add_argument("--seed", type=int, default=0, help="seed of the probes")
    parser.add_argument("--quick", action="store_true", help="smoke test: two probes, one reference, two steps")
    arguments = parser.parse_args()
    size = QUICK if arguments.quick else Size(probes=arguments.probes, threaded=arguments.threaded, stream=arguments.stream)
    with tempfile.TemporaryDirectory() as temporary:
        pipelines = arguments.pipelines or restored(Path(temporary) / "pipelines")
        probes = generated(Path(temporary), max(size.probes, size.threaded, size.stream), arguments.seed, size.probe_steps)
        rows = one_by_one(probes[: size.probes], pipelines, size) if size.probes else []
        rows += two_threads(probes[: size.threaded], pipelines, size) if size.threaded else []
        rows += stream(probes[: size.stream], pipelines, size) if size.stream else []
    show(rows, as_json=arguments.json)


def generated(folder: Path, count: int, seed: int, steps: int) -> list[Probe]:
    """`count` picture files in `folder`, by the candidates in random order, with the captioner's captions."""
    from resynth_fast.candidates.engine import EngineCandidate
    from resynth_fast.captioners.tagger import Tagger
    from resynth_fast.engines.pool import EnginePool
    from resynth_fast.evaluation.zoo import generate_probes

    pool = EnginePool(threads=1)
    generators = [EngineCandidate(bundle, pool) for bundle in zoo.candidates()]
    texts = np.random.default_rng([seed, 0xE2E]).choice(np.array(zoo.prompts()), count, replace=count > len(zoo.prompts())).tolist()
    pictures = generate_probes(generators, texts, [i % len(generators) for i in range(count)], seed=seed, steps=steps)
    order = np.random.default_rng(seed).permutation(count).tolist()  # `pictures` is sorted by candidate
    tagger, probes = Tagger(zoo.bundle(zoo.TAGGER), pool), []
    for i, probe in enumerate(pictures[j] for j in order):
        path = folder / f"{i:04}.png"
        Image.fromarray(probe.pixels).save(path)
        probes.append(Probe(path, generators[probe.truth].name, tagger.caption([probe.pixels])[0]))
    return probes


def one_by_one(probes: Sequence[Probe], pipelines: Path, size: Size) -> list[Row]:
    """Time, peak memory and labels compared with both loops; with OpenVINO's bfloat16 too if the processor supports it."""
    contestants = {"ours": _ours(size), NAIVE: _loop(pipelines, size), BATCHED: _loop(pipelines, size, batch=True)}
    if _bfloat16():
        contestants["bf16"] = _ours(size, backend="openvino:bf16")
    turns = _measure(contestants, probes)
    case = f"one probe, {size.case}"
    rows = [
        _pairs(case, turns["ours"], turns[NAIVE], NAIVE, WARM),
        _pairs(case, turns["ours"], turns[BATCHED], BATCHED, WARM_BATCHED),
        _pairs(f"{case}: processor time", turns["ours"], turns[NAIVE], NAIVE, None, lambda turn: turn.cpu_s),
        *labels(probes, *([turn.answers[0] for turn in turns[name]] for name in ("ours", NAIVE))),
        measured(
            "end to end",
            "peak memory, warm",
            ours=turns["ours"][-1].peak_mb,
            peer=turns[NAIVE][-1].peak_mb,
            peer_name=NAIVE,
            goal=MEMORY,
            unit="MB",
        ),
    ]
    if "bf16" in turns:
        firsts = ([turn.answers[0].label for turn in turns[name]] for name in ("bf16", "ours"))
        rows.append(_pairs(f"{case}: OpenVINO bfloat16", turns["bf16"], turns[NAIVE], NAIVE, BF16))
        rows.append(_agreement("the same first candidate with OpenVINO bfloat16 as with ONNX Runtime", firsts, UNCHANGED))
    return rows


def labels(probes: Sequence[Probe], ours: Sequence[Answer], loop: Sequence[Answer]) -> list[Row]:
    """Labels by the paper's comparison on our pictures and on the loop's, and the accuracy of our score on the same pictures."""
    from resynth_fast.extractors.space import open_space

    if other := [p.path.name for p, answer in zip(probes, ours, strict=True) if answer.caption != p.caption]:
        raise SystemExit(f"ours and the loop used different captions: {', '.join(other)}")
    space = open_space(zoo.bundle(zoo.TEXTURE))
    answers = [nearest(space, np.asarray(Image.open(p.path)), answer.pictures) for p, answer in zip(probes, ours, strict=True)]
    largest = max(abs(a.distances[name] - b.distances[name]) for a, b in zip(answers, loop, strict=True) for name in a.distances)
    right, theirs = (float(np.mean([a.label == p.truth for a, p in zip(labelled, probes, strict=True)])) for labelled in (ours, loop))
    return [
        _agreement(
            f"the same label by the paper's comparison, our pictures and the loop's (distances differ by {largest:.1e} at most)",
            ([a.label for a in answers], [b.label for b in loop]),
            1.0,
        ),
        measured(
            "end to end",
            "right first candidates, our recipe beside the paper's",
            ours=100 * right,
            peer=100 * theirs,
            peer_name=NAIVE,
            ratio=right / max(theirs, 1e-9),
            goal=None,
            unit="%",
        ),
    ]


def two_threads(probes: Sequence[Probe], pipelines: Path, size: Size) -> list[Row]:
    """Both contestants with two threads, and the gain of ours from the second thread."""
    turns = _measure({"ours": _ours(size, threads=2), "one": _ours(size), NAIVE: _loop(pipelines, size, threads=2)}, probes)
    case = f"one probe, {size.case}, two threads"
    rows = [
        _pairs(case, turns["ours"], turns[NAIVE], f"{NAIVE}, two threads", TWO_THREADS),
        _pairs(case + " beside one", turns["ours"], turns["one"], "ours, one thread", None),
    ]
    return [dataclasses.replace(row, threads=2) for row in rows]


def stream(probes: Sequence[Probe], pipelines: Path, size: Size) -> list[Row]:
    """Many probes on two cores. Each part is compared with the parts before it; all parts that cost no accuracy, with the faster loop."""
    fewer = size.steps // 2
    parts: dict[str, dict[str, Any]] = {
        "engines": {"chunk": 1},
        f"+ {CHUNK} probes at a time": {},
        "+ racing": {"race": True},
        "+ a second core": {"race": True, "threads": 2},
        f"+ {fewer} steps": {"race": True, "threads": 2, "steps": fewer},
    }
    *free, _ = parts
    loops = {NAIVE: _loop(pipelines, size), f"{NAIVE}, two threads": _loop(pipelines, size, threads=2)}
    contestants = {name: _ours(size, **options) for name, options in parts.items()}
    samples: dict[str, list[float]] = {name: [] for name in (*parts, *loops)}
    hits: dict[str, list[bool]] = {name: [] for name in (*parts, *loops)}
    with Contestants(**contestants) as ask, Contestants(**loops) as loop:
        ask(probes[:CHUNK])
        loop(probes[:1])
        for number, start in enumerate(range(0, len(probes), CHUNK)):
            chunk = probes[start : start + CHUNK]
            turns = ask(chunk, among=[] if number % EVERY == 0 else free[-1:]) | loop(chunk[:1])
            for name, turn in turns.items():
                samples[name].append(1000 * turn.seconds / len(turn.answers))
                hits[name] += [a.label == p.truth for a, p in zip(turn.answers, chunk, strict=False)]
    rows, before = [], NAIVE
    for name in parts:
        case = f"stream: {name} ({100 * np.mean(hits[name]):.1f} % of {len(hits[name])} right)"
        rows.append(_row(case, samples[name], samples[before], before.removeprefix("+ "), None))
        before = name
    naive = min(loops, key=lambda name: float(np.median(samples[name])))
    case = f"stream of {len(probes)} probes on two cores, all of these but the fewer steps"
    peer = f"{naive} ({100 * np.mean(hits[naive]):.1f} % of {len(hits[naive])} right), the faster"
    return [*rows, dataclasses.replace(_row(case, samples[free[-1]], samples[naive], peer, STREAM), threads=2)]


def _measure(contestants: Mapping[str, Any], probes: Sequence[Probe]) -> dict[str, list[Turn]]:
    """Every contestant's turns, one per probe, after one for warming up."""
    with Contestants(**contestants) as ask:
        ask(probes[:1])
        rounds = [ask([probe]) for probe in probes]
    return {name: [turns[name] for turns in rounds] for name in contestants}


def _ours(size: Size, **options: Any) -> tuple[Callable[..., Ours], dict[str, Any]]:
    common = {"references": size.references, "steps": size.steps, "guidance": (1,), "threads": 1, "strict_backend": True}
    return Ours, common | options


def _loop(pipelines: Path, size: Size, **options: Any) -> tuple[Callable[..., Loop], dict[str, Any]]:
    common = {"pipelines": pipelines, "candidates": [b.name for b in zoo.candidates()], "references": size.references, "steps": size.steps}
    return Loop, common | options


def _bfloat16() -> bool:
    """Whether OpenVINO is installed and computes in bfloat16 on this processor."""
    if find_spec("openvino") is None:
        return False
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def _pairs(
    case: str,
    ours: Sequence[Turn],
    peer: Sequence[Turn],
    name: str,
    goal: float | None,
    of: Callable[[Turn], float] = lambda turn: turn.seconds,
) -> Row:
    engines = float(np.median([turn.engines_s / turn.seconds for turn in ours]))
    mine, theirs = ([1000 * of(turn) for turn in turns] for turns in (ours, peer))
    return _row(case, mine, theirs, name, goal, ratio=float(np.median(np.divide(theirs, mine))), limit_pct=100 * engines)


def _row(case: str, ours: Sequence[float], peer: Sequence[float], name: str, goal: float | None, **more: Any) -> Row:
    return measured(
        "end to end",
        case,
        ours=float(np.median(ours)),
        ours_p90=float(np.percentile(ours, 90)),
        peer=float(np.median(peer)),
        peer_p90=float(np.percentile(peer, 90)),
        peer_name=name,
        goal=goal,
        unit="ms a probe",
        **more,
    )


def _agreement(case: str, labels: Any, goal: float) -> Row:
    ours, theirs = labels
    same = sum(a == b for a, b in zip(ours, theirs, strict=True))
    return measured("end to end", case, ours=same, peer=len(ours), peer_name="of", ratio=same / len(ours), goal=goal, unit="probes")


if __name__ == "__main__":
    main()
