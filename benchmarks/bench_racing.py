"""Racing against the exhaustive run, on fresh probes of the embedded zoo: denoiser calls, agreement, accuracy.

    python benchmarks/bench_racing.py [--json] [--probes 400] [--references 4] [--seeds 2,21] [--keep FOLDER]

All references of all probes are generated once, and the race runs on them. It uses each candidate's first references, which
are the pictures that `resynth attribute --race` generates; this is checked on the first probes. Four probes in five are by
the candidates, one by a withheld generator. Probes have 20 steps; their captions are the captioner's.
"""

# First, because it fixes the number of threads, which NumPy reads when it is imported.
from timing import Row, commit, processor, show

# isort: split
import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from resynth_fast import zoo
from resynth_fast.attributor import Attributor
from resynth_fast.candidates import ScheduledCandidate
from resynth_fast.candidates.engine import EngineCandidate
from resynth_fast.evaluation import metrics, racing
from resynth_fast.evaluation.zoo import generate_probes, reference_points
from resynth_fast.images import perturbations
from resynth_fast.scoring.decision import Decision
from resynth_fast.types import Doubles, Integers, Picture, Pixels

FEWER, AGREEMENT, POINTS = 2.0, 0.99, 1.0
CHUNK, CHECKED = 20, 4
ARRAYS = ("points", "copies", "references")
"""Fields of `ProbeReferences`, in its order."""


@dataclass(frozen=True, slots=True)
class ProbeReferences:
    """n probes and the whitened features of their pictures."""

    truth: Integers
    """(n,) index of the generator, -1 for a generator that is no candidate"""
    captions: list[str]
    points: Doubles
    """(n, d)"""
    copies: Doubles
    """(n, m, d)"""
    references: Doubles
    """(n, C, K, d)"""

    def by_probe(self) -> list[list[Doubles]]:
        """For each probe, every candidate's references (K, d)."""
        return [list(probe) for probe in self.references]


def main() -> None:
    """Generate, race and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--probes", type=int, default=400, help="number of probes for each seed")
    parser.add_argument("--references", type=int, default=4, help="largest number of references of a candidate")
    parser.add_argument(
        "--seeds", default="2,21", help="seeds of the probes, separated by commas; the racing rules were chosen on seeds 11 and 12"
    )
    parser.add_argument("--keep", type=Path, help="folder that stores the features; stored ones are used again")
    arguments = parser.parse_args()
    attributor = Attributor.open(references=arguments.references, threads=1, race=True)
    parts = [stored(attributor, arguments.probes, int(seed), arguments.keep) for seed in arguments.seeds.split(",")]
    references = ProbeReferences(
        np.concatenate([part.truth for part in parts]),
        [caption for part in parts for caption in part.captions],
        *(np.concatenate([getattr(part, name) for part in parts]) for name in ARRAYS),
    )
    show(compare(attributor, references), as_json=arguments.json)


def stored(attributor: Attributor, count: int, seed: int, folder: Path | None) -> ProbeReferences:
    """The probes and references of one seed, from `folder` if they are stored there."""
    file = folder and folder / f"seed-{seed}-probes-{count}-references-{attributor.options.references}.npz"
    if file and file.exists():
        with np.load(file) as arrays:
            return ProbeReferences(arrays["truth"], arrays["captions"].tolist(), *(arrays[name].astype(np.float64) for name in ARRAYS))
    references = generate(attributor, count, seed)
    check(attributor, seed)
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        narrow = {name: getattr(references, name).astype(np.float32) for name in ARRAYS}
        np.savez(file, truth=references.truth, captions=np.array(references.captions), **narrow)
    return references


def generate(attributor: Attributor, count: int, seed: int) -> ProbeReferences:
    """Generate probes and all references of each."""
    parts: list[tuple[Doubles, Doubles, Doubles]] = []
    truth: list[int] = []
    captions: list[str] = []
    for start in range(0, count, CHUNK):
        owners, probes = probes_of(attributor, min(CHUNK, count - start), seed, start)
        chunk_captions = attributor.captioner.caption(probes)
        by_caption = reference_points(attributor, list(dict.fromkeys(chunk_captions)))
        changes = [perturbations.perturbation(name) for name in perturbations.MILD]
        copies = np.stack([attributor.space([change(probe) for change in changes]) for probe in probes])
        references = np.stack([np.stack([by_caption[c, name] for name in attributor.candidates]) for c in chunk_captions])
        parts.append((attributor.space(probes), copies, references))
        truth += owners
        captions += chunk_captions
        print(f"{start + len(probes)} of {count} probes", end="\r", file=sys.stderr)
    return ProbeReferences(np.array(truth), captions, *(np.concatenate(part) for part in zip(*parts, strict=True)))


def probes_of(attributor: Attributor, count: int, seed: int, start: int) -> tuple[list[int], list[Pixels]]:
    """Generator index and picture of every probe. Every fifth is by a withheld generator, the others by the candidates in turn."""
    generators = [c for c in attributor.candidates.values() if isinstance(c, ScheduledCandidate)]
    outside = [EngineCandidate(bundle, attributor.pool) for bundle in zoo.withheld()]
    truth = [-1 if i % 5 == 4 else (i - i // 5) % len(generators) for i in range(start, start + count)]
    captions = np.random.default_rng([seed, start, 0x5ACE]).choice(np.array(zoo.prompts()), count).tolist()
    owners: list[int] = []
    pixels: list[Pixels] = []
    for owner in sorted(set(truth)):
        texts = [text for text, t in zip(captions, truth, strict=True) if t == owner]
        candidate = outside[0] if owner < 0 else generators[owner]
        probes = generate_probes([candidate], texts, [0] * len(texts), seed=(seed << 12) + start + owner + 1, steps=20)
        owners += [owner] * len(probes)
        pixels += [probe.pixels for probe in probes]
    return owners, pixels


def check(attributor: Attributor, seed: int) -> None:
    """SystemExit unless the attributor generates the references that the race on stored references counts."""
    _, pixels = probes_of(attributor, CHECKED, seed, 0)
    verdicts = attributor([picture(p) for p in pixels])
    stored = generate(attributor, CHECKED, seed)
    for verdict, row in zip(verdicts, racing.race(attributor, stored.captions, list(stored.points), stored.by_probe()), strict=True):
        counts = {c.name: len(c.resyntheses) for c in verdict.candidates}
        expected = dict(zip(attributor.candidates, row.tolist(), strict=True))
        if counts != expected:
            raise SystemExit(f"the attributor generated {counts} references, the race on stored references used {expected}")


def picture(pixels: Pixels) -> Picture:
    """`pixels` as a picture without metadata."""
    height, width = pixels.shape[:2]
    return Picture(pixels=pixels, sha256="", format="PNG", width=width, height=height, exif_orientation=1, warnings=(), info={})


def compare(attributor: Attributor, stored: ProbeReferences) -> list[Row]:
    """Rows: denoiser calls, agreement where the exhaustive run attributes, accuracy. Their names hold the details."""
    n, candidates, most = stored.references.shape[:3]
    probes = stored.captions, list(stored.points), [list(c) for c in stored.copies], stored.by_probe()
    counts = racing.race(attributor, stored.captions, list(stored.points), stored.by_probe())
    raced = racing.judged(attributor, *probes, counts)
    exhaustive = racing.judged(attributor, *probes, np.full((n, candidates), most))
    prompts = np.unique(np.array(stored.captions), return_inverse=True)[1]
    result = racing.agreement(attributor, raced, exhaustive, counts, stored.truth, prompts)
    in_set = stored.truth >= 0
    ours, theirs = ([d for d, inside in zip(ds, in_set, strict=True) if inside] for ds in (raced, exhaustive))
    own = racing.agreement(attributor, ours, theirs, counts[in_set], stored.truth[in_set], prompts[in_set])
    unknown, rejected = (
        [float(np.mean([d.status == "unknown" for d, k in zip(ds, in_set, strict=True) if k == inside])) for ds in (raced, exhaustive)]
        for inside in (False, True)
    )
    lost = [d.status == "unknown" for d, e in zip(raced, exhaustive, strict=True) if e.status == "attributed"]
    rows, all_rows = result["denoiser_rows"], result["of_denoiser_rows"]
    low, high = (100 * end for end in result["difference_ci95"])

    def row(case: str, unit: str, ours: float, peer: float, ratio: float, goal: float | None, met: bool | None) -> Row:
        return Row(
            bench="racing",
            case=f"{case}, {n} probes, at most {most} references",
            unit=unit,
            ours=ours,
            ours_p90=ours,
            peer=peer,
            peer_p90=peer,
            peer_name="exhaustive",
            ratio=ratio,
            goal=goal,
            met=met,
            limit_pct=None,
            device=processor(),
            threads=1,
            commit=commit(),
        )

    return [
        row("denoiser rows", "rows a probe", rows, all_rows, all_rows / rows, FEWER, all_rows / rows >= FEWER),
        row(
            "denoiser rows, candidates' own probes alone",
            "rows a probe",
            own["denoiser_rows"],
            all_rows,
            all_rows / own["denoiser_rows"],
            None,
            None,
        ),
        row(
            "pictures",
            "pictures a probe",
            result["pictures"],
            result["of_pictures"],
            result["of_pictures"] / result["pictures"],
            None,
            None,
        ),
        row(
            f"same first candidate where the exhaustive run attributes ({result['differ']} of {result['attributed']} differ, "
            f"95 % from {result['agreement_ci95'][0]:.3f})",
            "share",
            result["agreement"],
            1.0,
            result["agreement"],
            AGREEMENT,
            result["agreement"] >= AGREEMENT,
        ),
        row(
            "answered unknown where the exhaustive run attributes", "share", float(np.mean(lost)), 0.0, 1 - float(np.mean(lost)), None, None
        ),
        row("same first candidate, all", "share", result["agreement_all"], 1.0, result["agreement_all"], None, None),
        row(
            f"accuracy: {100 * result['difference']:+.2f} points [{low:+.2f}, {high:+.2f}]",
            "share",
            result["accuracy"],
            result["of_accuracy"],
            result["accuracy"] / result["of_accuracy"],
            1 - POINTS / 100 / result["of_accuracy"],
            abs(100 * result["difference"]) <= POINTS,
        ),
        row("withheld generators answered unknown", "share", unknown[0], unknown[1], unknown[0] / max(unknown[1], 1e-9), None, None),
        row(
            "candidates' own pictures answered unknown", "share", rejected[0], rejected[1], rejected[0] / max(rejected[1], 1e-9), None, None
        ),
        row("negative log-likelihood", "nats", *_nll(raced, exhaustive, stored.truth, in_set), None, None),
    ]


def _nll(
    raced: Sequence[Decision], exhaustive: Sequence[Decision], truth: Integers, in_set: npt.NDArray[np.bool_]
) -> tuple[float, float, float]:
    ours, peer = (metrics.nll(np.stack([d.probabilities for d in ds])[in_set], truth[in_set]) for ds in (raced, exhaustive))
    return ours, peer, peer / ours


if __name__ == "__main__":
    main()
