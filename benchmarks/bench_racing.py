"""Racing beside the exhaustive run, on fresh probes of the embedded zoo: denoiser calls, agreement, accuracy.

    python benchmarks/bench_racing.py [--json] [--probes 400] [--references 4] [--seeds 2,21] [--keep FOLDER]

All references of all probes are drawn once. The race is then run on them: it takes the first so many of each
candidate, the same pictures that `resynth attribute --race` draws (checked on the first probes, by drawing them).
Probes are the candidates' own, 20 steps each, with the captioner's captions; one in five is a withheld generator's.
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
from resynth_fast.arrays import Doubles, Integers
from resynth_fast.attributor import Attributor
from resynth_fast.candidates import ScheduledCandidate
from resynth_fast.candidates.engine import EngineCandidate
from resynth_fast.evaluation import metrics, racing
from resynth_fast.evaluation.zoo import generate_probes, reference_points
from resynth_fast.images import perturbations
from resynth_fast.scoring.decision import Decision
from resynth_fast.types import Picture, Pixels

FEWER, AGREEMENT, POINTS = 2.0, 0.99, 1.0
CHUNK, CHECKED = 20, 4
ARRAYS = ("points", "copies", "references")
"""Of `Drawn`, in its order."""


@dataclass(frozen=True, slots=True)
class ProbeReferences:
    """All that was drawn for n probes."""

    truth: Integers
    """(n,), -1: by a generator that is no candidate"""
    captions: list[str]
    points: Doubles
    """(n, d)"""
    copies: Doubles
    """(n, m, d)"""
    references: Doubles
    """(n, C, K, d)"""

    def each(self) -> list[list[Doubles]]:
        """For each probe, every candidate's references (K, d)."""
        return [list(probe) for probe in self.references]


def main() -> None:
    """Draw, race and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument("--probes", type=int, default=400, help="of each seed")
    parser.add_argument("--references", type=int, default=4, help="of a candidate, at most")
    parser.add_argument("--seeds", default="2,21", help="of the probes, separated by commas; the rules were chosen on 11 and 12")
    parser.add_argument("--keep", type=Path, help="keep what is drawn in this folder, and race on what it holds")
    arguments = parser.parse_args()
    attributor = Attributor.open(references=arguments.references, threads=1, race=True)
    parts = [kept(attributor, arguments.probes, int(seed), arguments.keep) for seed in arguments.seeds.split(",")]
    drawn = ProbeReferences(
        np.concatenate([part.truth for part in parts]),
        [caption for part in parts for caption in part.captions],
        *(np.concatenate([getattr(part, name) for part in parts]) for name in ARRAYS),
    )
    show(compare(attributor, drawn), as_json=arguments.json)


def kept(attributor: Attributor, count: int, seed: int, folder: Path | None) -> ProbeReferences:
    """What is drawn for one seed, or was drawn before."""
    file = folder and folder / f"seed-{seed}-probes-{count}-references-{attributor.options.references}.npz"
    if file and file.exists():
        with np.load(file) as held:
            return ProbeReferences(held["truth"], held["captions"].tolist(), *(held[name].astype(np.float64) for name in ARRAYS))
    drawn = draw_all(attributor, count, seed)
    check(attributor, seed)
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        arrays = {name: getattr(drawn, name).astype(np.float32) for name in ARRAYS}
        np.savez(file, truth=drawn.truth, captions=np.array(drawn.captions), **arrays)
    return drawn


def draw_all(attributor: Attributor, count: int, seed: int) -> ProbeReferences:
    """Probes, and all references of each."""
    parts: list[tuple[Doubles, Doubles, Doubles]] = []
    truth: list[int] = []
    captions: list[str] = []
    for start in range(0, count, CHUNK):
        owners, probes = probes_of(attributor, min(CHUNK, count - start), seed, start)
        said = attributor.captioner.caption(probes)
        found = reference_points(attributor, list(dict.fromkeys(said)))
        changes = [perturbations.perturbation(name) for name in perturbations.MILD]
        copies = np.stack([attributor.space([change(probe) for change in changes]) for probe in probes])
        parts.append(
            (attributor.space(probes), copies, np.stack([np.stack([found[c, name] for name in attributor.candidates]) for c in said]))
        )
        truth += owners
        captions += said
        print(f"{start + len(probes)} of {count} probes", end="\r", file=sys.stderr)
    points, changed, drawn = (np.concatenate(part) for part in zip(*parts, strict=True))
    return ProbeReferences(np.array(truth), captions, points, changed, drawn)


def probes_of(attributor: Attributor, count: int, seed: int, start: int) -> tuple[list[int], list[Pixels]]:
    """Every fifth probe is by a withheld generator; the others are the candidates' in turn."""
    makers = [c for c in attributor.candidates.values() if isinstance(c, ScheduledCandidate)]
    outside = [EngineCandidate(bundle, attributor.pool) for bundle in zoo.withheld()]
    truth = [-1 if i % 5 == 4 else (i - i // 5) % len(makers) for i in range(start, start + count)]
    captions = np.random.default_rng([seed, start, 0x5ACE]).choice(np.array(zoo.prompts()), count).tolist()
    owners: list[int] = []
    pixels: list[Pixels] = []
    for owner in sorted(set(truth)):
        texts = [text for text, t in zip(captions, truth, strict=True) if t == owner]
        candidate = outside[0] if owner < 0 else makers[owner]
        made = generate_probes([candidate], texts, [0] * len(texts), seed=(seed << 12) + start + owner + 1, steps=20)
        owners += [owner] * len(made)
        pixels += [probe.pixels for probe in made]
    return owners, pixels


def check(attributor: Attributor, seed: int) -> None:
    """That the attributor draws and answers as the race on what was drawn does."""
    _, pixels = probes_of(attributor, CHECKED, seed, 0)
    verdicts = attributor([picture(p) for p in pixels])
    drawn = draw_all(attributor, CHECKED, seed)
    for verdict, row in zip(verdicts, racing.race(attributor, drawn.captions, list(drawn.points), drawn.each()), strict=True):
        counts = {c.name: len(c.resyntheses) for c in verdict.candidates}
        expected = dict(zip(attributor.candidates, row.tolist(), strict=True))
        if counts != expected:
            raise SystemExit(f"the attributor drew {counts}, the race on what was drawn {expected}")


def picture(pixels: Pixels) -> Picture:
    """As if it had been read from a file."""
    height, width = pixels.shape[:2]
    return Picture(pixels=pixels, sha256="", format="PNG", width=width, height=height, exif_orientation=1, warnings=(), info={})


def compare(attributor: Attributor, drawn: ProbeReferences) -> list[Row]:
    """Rows: denoiser calls, agreement where the exhaustive run attributes, accuracy; the details of each in its name."""
    n, candidates, most = drawn.references.shape[:3]
    given = drawn.captions, list(drawn.points), [list(c) for c in drawn.copies], drawn.each()
    counts = racing.race(attributor, drawn.captions, list(drawn.points), drawn.each())
    raced = racing.judged(attributor, *given, counts)
    exhaustive = racing.judged(attributor, *given, np.full((n, candidates), most))
    prompts = np.unique(np.array(drawn.captions), return_inverse=True)[1]
    found = racing.agreement(attributor, raced, exhaustive, counts, drawn.truth, prompts)
    known = drawn.truth >= 0
    ours, theirs = ([d for d, k in zip(ds, known, strict=True) if k] for ds in (raced, exhaustive))
    own = racing.agreement(attributor, ours, theirs, counts[known], drawn.truth[known], prompts[known])
    unknown, rejected = (
        [float(np.mean([d.status == "unknown" for d, k in zip(ds, known, strict=True) if k == of])) for ds in (raced, exhaustive)]
        for of in (False, True)
    )
    gone = [d.status == "unknown" for d, e in zip(raced, exhaustive, strict=True) if e.status == "attributed"]
    rows, all_rows = found["denoiser_rows"], found["of_denoiser_rows"]
    low, high = (100 * end for end in found["difference_ci95"])

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
        row("pictures", "pictures a probe", found["pictures"], found["of_pictures"], found["of_pictures"] / found["pictures"], None, None),
        row(
            f"same first candidate where the exhaustive run attributes ({found['differ']} of {found['attributed']} differ, "
            f"95 % from {found['agreement_ci95'][0]:.3f})",
            "share",
            found["agreement"],
            1.0,
            found["agreement"],
            AGREEMENT,
            found["agreement"] >= AGREEMENT,
        ),
        row(
            "answered unknown where the exhaustive run attributes", "share", float(np.mean(gone)), 0.0, 1 - float(np.mean(gone)), None, None
        ),
        row("same first candidate, all", "share", found["agreement_all"], 1.0, found["agreement_all"], None, None),
        row(
            f"accuracy: {100 * found['difference']:+.2f} points [{low:+.2f}, {high:+.2f}]",
            "share",
            found["accuracy"],
            found["of_accuracy"],
            found["accuracy"] / found["of_accuracy"],
            1 - POINTS / 100 / found["of_accuracy"],
            abs(100 * found["difference"]) <= POINTS,
        ),
        row("withheld generators answered unknown", "share", unknown[0], unknown[1], unknown[0] / max(unknown[1], 1e-9), None, None),
        row(
            "candidates' own pictures answered unknown", "share", rejected[0], rejected[1], rejected[0] / max(rejected[1], 1e-9), None, None
        ),
        row("negative log-likelihood", "nats", *_nll(raced, exhaustive, drawn.truth, known), None, None),
    ]


def _nll(
    raced: Sequence[Decision], exhaustive: Sequence[Decision], truth: Integers, known: npt.NDArray[np.bool_]
) -> tuple[float, float, float]:
    ours, peer = (metrics.nll(np.stack([d.probabilities for d in ds])[known], truth[known]) for ds in (raced, exhaustive))
    return ours, peer, peer / ours


if __name__ == "__main__":
    main()
