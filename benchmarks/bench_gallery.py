"""A gallery of 100,000 entries: time to open it, and to find the neighbours of one probe and of many in one tap."""

# First, because it fixes the number of threads, which NumPy reads when it is imported.
from timing import Row, compare, interleave, measured, run

# isort: split
import dataclasses
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from resynth_fast.gallery import Entry, Gallery, Layout
from resynth_fast.kernels.topk import topk
from resynth_fast.types import Floats

ENTRIES = int(os.environ.get("RESYNTH_BENCH_ENTRIES", "100000"))
TAPS = {f"block{i}": 768 for i in range(5, 10)}
DEEP = "block9"
GENERATORS = 14
PER_GENERATOR = 4
BATCH = 2000
OPENING_US = 200_000.0
LOOKUP_US = 50_000.0
KERNEL_SHARE = 0.8  # goal: the kernel's share of a look-up's time, for a gallery with a single tap
QUERIES, ALONE = 1000, 20
TOGETHER = 20.0  # goal: how many times faster a look-up is when many share one call


def main() -> None:
    """Fill a gallery in RESYNTH_BENCH_DIR (default: the temporary folder) and time it. Some goals are times, not ratios."""
    run(cpu=on_cpu)


def on_cpu() -> list[Row]:
    with tempfile.TemporaryDirectory(prefix="resynth-bench-", dir=os.environ.get("RESYNTH_BENCH_DIR")) as name:
        five, one = Path(name) / "five", Path(name) / "one"
        fill(five, TAPS)
        fill(one, {DEEP: TAPS[DEEP]})
        return [*opening(five), *lookup(five, f"a tap of {len(TAPS)}"), *lookup(one, "the only tap", KERNEL_SHARE)]


def fill(folder: Path, taps: dict[str, int]) -> None:
    """Fill a gallery with pictures of a few generators. The mean of their features is far from zero, as for transformers."""
    rng = np.random.default_rng(0)
    dimension = sum(taps.values())
    mean, scale = 3 * rng.standard_normal(dimension), rng.uniform(0.2, 2, dimension)
    extractor = Layout(name="bench", sha256="0" * 64, blocks=taps, mean=mean, scale=scale * np.sqrt(768))
    with Gallery.create(folder, extractor) as gallery:
        for start in range(0, ENTRIES, BATCH):
            numbers = range(start, min(start + BATCH, ENTRIES))
            features = (mean + scale * rng.standard_normal((len(numbers), dimension), np.float32)).astype(np.float32)
            gallery.add([entry(i) for i in numbers], features)
    print(f"filled {len(taps)} tap(s) with {ENTRIES} entries", file=sys.stderr)


def entry(number: int) -> Entry:
    picture = hashlib.sha256(str(number).encode()).hexdigest()
    return Entry(generator=f"generator {number % GENERATORS}", picture_sha256=picture, prompt=f"prompt {number // 50}")


def opening(folder: Path) -> list[Row]:
    """Time until the number of entries is known, and until the first look-up returns."""

    def opened() -> int:
        with Gallery.open(folder) as gallery:
            return len(gallery)

    def ready() -> int:
        with Gallery.open(folder) as gallery:
            assert gallery.nearest(query, [DEEP])
            return len(gallery)

    with Gallery.open(folder) as gallery:
        entries = [vars(entry) for entry in gallery.select()]
        query = gallery.features([ENTRIES // 2])
    (folder / "entries.json").write_text(json.dumps(entries))
    del entries

    def use_json() -> int:
        return len(json.loads((folder / "entries.json").read_bytes()))

    peers = {"one JSON file": use_json}
    return [
        *within(OPENING_US, compare("gallery", f"open {ENTRIES}", opened, peers, verify=same)),
        *within(OPENING_US, compare("gallery", f"open {ENTRIES}, and look up", ready, peers, verify=same)),
    ]


def within(allowed_us: float, rows: list[Row]) -> list[Row]:
    """`rows` and one more row, whose peer is the allowed time."""
    ours = rows[0].ours
    goal = dataclasses.replace(
        rows[0],
        peer=allowed_us,
        peer_p90=allowed_us,
        peer_name="time allowed",
        ratio=allowed_us / ours,
        goal=1.0,
        met=ours <= allowed_us,
    )
    return [*rows, goal]


def lookup(folder: Path, tap: str, share: float | None = None) -> list[Row]:
    """Look-ups of one probe and of many."""
    with Gallery.open(folder) as gallery:
        queries = gallery.features(np.random.default_rng(1).integers(0, ENTRIES, QUERIES)) + np.float32(0.1)
        return [*one(gallery, queries[:1], tap, share), together(gallery, queries, tap)]


def one(gallery: Gallery, query: Floats, tap: str, share: float | None) -> list[Row]:
    """One look-up, against its kernel alone and against libraries on rows that were scaled and normalised in advance."""
    columns = gallery.layout.column_of([DEEP])[DEEP]
    mean, scale = gallery.layout.mean[columns], gallery.layout.scale[columns]
    stored = np.fromfile(gallery.folder / "vectors" / f"{DEEP}.f32", np.float32).reshape(ENTRIES, -1)
    generator = np.arange(ENTRIES) % GENERATORS

    def ours() -> list[list[int]]:
        [by_generator] = gallery.nearest(query, [DEEP], per_generator=PER_GENERATOR)
        return [[neighbour.entry.row for neighbour in neighbours] for _, neighbours in sorted(by_generator.items())]

    unit = ((stored - mean.astype(np.float32)) / scale.astype(np.float32)).astype(np.float32)
    weights = 1 / np.linalg.norm(unit, axis=1)
    unit *= weights[:, None]
    probe = ((query[0, columns] - mean) / scale).astype(np.float32)
    folded = (probe / scale).astype(np.float32)
    arguments = {"offsets": np.array([-mean @ folded], np.float32), "weights": weights, "groups": generator.astype(np.int32)}
    order = sorted(range(GENERATORS), key=lambda g: f"generator {g}")

    def kernel() -> list[list[int]]:
        indices = topk(folded[None], stored, 2 * PER_GENERATOR + 16, **arguments, group_count=GENERATORS).indices[0]
        return [indices[g, :PER_GENERATOR].tolist() for g in order]

    rows = compare(
        "gallery",
        f"nearest {PER_GENERATOR} of each of {GENERATORS} in {ENTRIES}x{len(probe)}, {tap}",
        ours,
        {"the topk kernel alone": kernel, **peers(unit, probe, generator)},
        verify=same,
        goals={} if share is None else {"the topk kernel alone": share},
        limit=lambda: stored @ probe,  # BLAS reading the same bytes once
    )
    return within(LOOKUP_US, rows)


def together(gallery: Gallery, queries: Floats, tap: str) -> Row:
    """Many look-ups in one call, against one call for each; microseconds per look-up."""

    def apart() -> list[object]:
        return [gallery.nearest(query[None], [DEEP], per_generator=PER_GENERATOR)[0] for query in queries[:ALONE]]

    same(gallery.nearest(queries, [DEEP], per_generator=PER_GENERATOR)[:ALONE], apart())
    samples = interleave({"": lambda: gallery.nearest(queries, [DEEP], per_generator=PER_GENERATOR), "apart": apart}, rounds=5)
    ours, alone = np.median(samples[""]) / QUERIES, np.median(samples["apart"]) / ALONE
    case = f"a look-up of {QUERIES} in one call, {ENTRIES} rows, {tap}"
    return measured("gallery", case, ours=ours, peer=alone, peer_name="one call each", goal=TOGETHER)


def peers(unit: Floats, probe: Floats, generator: NDArray[np.int64]) -> dict[str, Callable[[], list[list[int]]]]:
    """Searches on rows in memory that were scaled and normalised in advance. None verifies the stored rows."""
    order = sorted(range(GENERATORS), key=lambda g: f"generator {g}")
    members = [np.flatnonzero(generator == g) for g in order]

    def use_numpy() -> list[list[int]]:
        scores = unit @ probe
        return [[int(rows[i]) for i in np.argsort(-scores[rows], kind="stable")[:PER_GENERATOR]] for rows in members]

    searches: dict[str, Callable[[], list[list[int]]]] = {"numpy, normalised before": use_numpy}
    if find_spec("faiss"):
        import faiss

        faiss.omp_set_num_threads(1)
        indexes = []
        for rows in members:
            indexes.append(faiss.IndexFlatIP(unit.shape[1]))
            indexes[-1].add(unit[rows])

        def use_faiss() -> list[list[int]]:
            hits = [index.search(probe[None], PER_GENERATOR)[1][0] for index in indexes]
            return [[int(rows[i]) for i in hit] for rows, hit in zip(members, hits, strict=True)]

        searches["faiss, an index a generator"] = use_faiss
    return searches


def same(ours: object, theirs: object) -> None:
    assert ours == theirs, (ours, theirs)


if __name__ == "__main__":
    main()
