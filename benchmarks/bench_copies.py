"""How many near copies are found, and how many pictures are taken for copies of others, on pictures of the embedded zoo.

    python benchmarks/bench_copies.py [--prompts 300] [--json]

Each of the zoo's five generators draws every caption twice: once with the seed that the others have too, once with its own.
Peer is the perceptual hash alone at the 31 bits that are usual for hashes of 256 bits, without colours and extended windows.
"""

# First, because it fixes the number of threads, which NumPy reads when it is imported.
from timing import Row, measured, show

# isort: split
import argparse
from collections.abc import Callable, Sequence

import numpy as np

from resynth_fast import zoo
from resynth_fast.candidates import ScheduledCandidate, find
from resynth_fast.engines.pool import EnginePool
from resynth_fast.images import copies, perturbations
from resynth_fast.types import Booleans, Bytes, Integers, Pixels

WITHHELD = "zoo:zoo-withheld"
USUAL_BITS = 31
CHANGES = (
    "jpeg-90",
    "jpeg-70",
    "jpeg-50",
    "webp-80",
    "resize-0.5",
    "resize-0.75",
    "resize-1.5",
    "resize-2",
    "blur-1",
    "noise-8",
    "crop-0.98",
    "crop-0.96",
    "crop-0.9",
)
EVERY = 20
"""Every twentieth picture is changed."""


def drawn(prompts: Sequence[str]) -> tuple[list[Pixels], Integers, Integers]:
    """The pictures, the caption (n,) and the generator (n,) of each."""
    pool = EnginePool(threads=1)
    generators = [c for c in find(["zoo:", WITHHELD], pool) if isinstance(c, ScheduledCandidate)]
    pictures: list[Pixels] = []
    for i, generator in enumerate(generators):
        for first in (1000, (i + 1) * 1_000_000):
            pictures += generator.make(prompts, range(first, first + len(prompts)), 8)
    caption = np.tile(np.arange(len(prompts)), 2 * len(generators))
    return pictures, caption, np.repeat(np.arange(len(generators)), 2 * len(prompts))


def found(probe: Bytes, given: copies.GivenPictures) -> list[int]:
    """Rows of the copies of a probe with these windows."""
    return [match.row for match in given("", probe)]


def by_hash(probe: Bytes, hashes: Bytes) -> list[int]:
    """Rows whose hash differs from the probe's first window in at most USUAL_BITS."""
    return np.flatnonzero(np.bitwise_count(hashes ^ probe[0, : copies.HASH_BYTES]).sum(1) <= USUAL_BITS).tolist()


def rows(prompts: Sequence[str]) -> list[Row]:
    """False matches by what the two pictures share, then the share of near copies that are found."""
    pictures, caption, generator = drawn(prompts)
    signed = [copies.signature(pixels) for pixels in pictures]
    given = copies.GivenPictures(
        copies.GivenPicture(row=i, generator="", file="", sha256=str(i), signature=signature) for i, signature in enumerate(signed)
    )
    hashes = np.frombuffer(b"".join(signed), np.uint8).reshape(len(signed), -1)[:, : copies.HASH_BYTES]
    kinds: dict[str, Callable[[int], Booleans]] = {
        "pictures of other captions": lambda i: caption != caption[i],
        "of the same caption, another generator": lambda i: (caption == caption[i]) & (generator != generator[i]),
        "of the same caption and generator": lambda i: (caption == caption[i]) & (generator == generator[i]),
    }
    windows = [copies.windows(pixels) for pixels in pictures]
    wrong = [[[row for row in near if row != i] for near in (found(w, given), by_hash(w, hashes))] for i, w in enumerate(windows)]
    table = []
    for name, shared in kinds.items():
        ours, peer = (sum(int(shared(i)[pair[side]].sum()) for i, pair in enumerate(wrong)) for side in (0, 1))
        pairs = sum(int(shared(i).sum()) - bool(shared(i)[i]) for i in range(len(pictures)))
        table.append(_row(f"taken for copies: {name}, of {pairs:,}", ours, peer, "pairs"))
    sample = range(0, len(pictures), EVERY)
    for name in CHANGES:
        changed = [copies.windows(perturbations.perturbation(name)(pictures[i])) for i in sample]
        probes = list(zip(sample, changed, strict=True))
        ours, peer = sum(i in found(w, given) for i, w in probes), sum(i in by_hash(w, hashes) for i, w in probes)
        table.append(_row(f"found after {name}", ours / len(sample), peer / len(sample), "of 1"))
    return table


def _row(case: str, ours: float, peer: float, unit: str) -> Row:
    return measured("copies", case, ours=ours, peer=peer, peer_name="hash alone", goal=None, unit=unit, ratio=ours / peer if peer else 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=300)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    show(rows(zoo.prompts()[: arguments.prompts]), as_json=arguments.json)


if __name__ == "__main__":
    main()
