"""Exact top-k over a gallery against every installed nearest-neighbour library."""

# First, because it fixes the number of threads, which NumPy reads when it is imported.
from timing import Row, allowed, compare, processor, run

# isort: split
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
from bits import in_batches
from numpy.typing import NDArray

from resynth_fast.kernels import isa
from resynth_fast.kernels.topk import topk
from resynth_fast.types import Floats

DIMENSION, K = 768, 10
GROUPS = 14
Indices = NDArray[np.int64]


def main() -> None:
    """Time one query (bound by memory) and many (bound by arithmetic), on small and large galleries, with and without groups."""
    run(
        cpu=lambda: [
            *on_cpu(1, 1_000),
            *on_cpu(1, 100_000),
            *halved(1, 100_000),
            *grouped(1, 100_000),
            *grouped(64, 10_000),
            *on_cpu(64, 10_000, {"torch": 1.0}),
            bits("topk", host_scores, processor()),
        ],
        gpu=lambda: [
            *on_gpu(1, 1_000),
            *on_gpu(1, 1_000_000, allowed_us=570.0),
            *on_gpu(64, 10_000),
            *on_gpu(256, 100_000, {"torch": 1.3, "cuvs, float16": 0.95}),
            *grouped_on_gpu(1, 1_000_000),
            *grouped_on_gpu(64, 100_000),
            device_bits(),
        ],
    )


def on_cpu(count: int, rows: int, goals: dict[str, float] | None = None) -> list[Row]:
    """float32 rows of length 1, so that every library can take part."""
    if isa() == "reference":
        raise SystemExit("resynth_fast was built without its extension: nothing to measure")
    queries, gallery = problem(count, rows)
    return compare(
        "topk",
        f"{count}x{rows}x{DIMENSION}, k={K}",
        lambda: topk(queries, gallery, K).indices[:, 0],
        peers(queries, gallery),
        verify=same,
        goals=goals,
        best=None if goals else 1.0,
        limit=limit(queries, gallery),
        device=f"{processor()}, {isa()}",
    )


def halved(count: int, rows: int) -> list[Row]:
    """`on_cpu` with rows stored as float16."""
    queries, gallery = problem(count, rows)
    half = gallery.astype(np.float16)
    others: dict[str, Callable[[], Indices]] = {"ours, float32": lambda: topk(queries, gallery, K).indices[:, 0]}
    if find_spec("torch"):
        import torch

        queries_t, half_t = torch.from_numpy(queries).half(), torch.from_numpy(half)
        others["torch, float16 queries too"] = lambda: np.asarray(torch.topk(queries_t @ half_t.T, K, dim=1).indices)
    flat = gallery.ravel()[: gallery.size // 2]
    return compare(
        "topk",
        f"{count}x{rows}x{DIMENSION} float16, k={K}",
        lambda: topk(queries, half, K).indices[:, 0],
        others,
        verify=mostly_same,
        goals={"ours, float32": 1.8},
        limit=lambda: flat @ flat,
        device=f"{processor()}, {isa()}",
    )


def grouped(count: int, rows: int) -> list[Row]:
    """The K best of each of GROUPS groups of weighted rows, with a fifteenth of the rows excluded, as in a gallery's look-up."""
    queries, gallery = problem(count, rows)
    groups, weights, offsets = scoring(count, rows)
    members = [np.flatnonzero(groups == group) for group in range(GROUPS)]

    def ours() -> Indices:
        return topk(queries, gallery, K, offsets=offsets, weights=weights, groups=groups, group_count=GROUPS).indices

    def use_numpy() -> Indices:
        scores = (queries @ gallery.T + offsets[:, None]) * weights
        return np.stack([rows_of[nearest(-scores[:, rows_of])] for rows_of in members], axis=1)

    others: dict[str, Callable[[], Indices]] = {"numpy": use_numpy}
    if find_spec("torch"):
        import torch

        torch.set_num_threads(1)
        arrays = tuple(map(torch.from_numpy, (queries, gallery, offsets, weights)))
        parts = [torch.from_numpy(rows_of) for rows_of in members]

        def use_torch() -> Indices:
            queries_t, gallery_t, offsets_t, weights_t = arrays
            scores = (queries_t @ gallery_t.T + offsets_t[:, None]) * weights_t
            return np.stack([rows_of[torch.topk(scores[:, rows_of], K, dim=1).indices].numpy() for rows_of in parts], axis=1)

        others["torch"] = use_torch
    return compare(
        "topk",
        f"{count}x{rows}x{DIMENSION}, k={K} of each of {GROUPS} groups",
        ours,
        others,
        verify=same,
        best=1.0,
        limit=limit(queries, gallery),
        device=f"{processor()}, {isa()}",
    )


def scoring(count: int, rows: int) -> tuple[NDArray[np.int32], Floats, Floats]:
    """Groups, weights and offsets."""
    rng = np.random.default_rng(1)
    groups = rng.integers(-1, GROUPS, rows).astype(np.int32)
    return groups, rng.uniform(0.5, 2, rows).astype(np.float32), rng.standard_normal(count).astype(np.float32)


def grouped_on_gpu(count: int, rows: int) -> list[Row]:
    """`grouped` on a GPU, with rows in float16."""
    import torch

    from resynth_fast.kernels import _cuda

    queries, gallery = (torch.from_numpy(array).cuda() for array in problem(count, rows))
    groups, weights, offsets = (torch.from_numpy(array).cuda() for array in scoring(count, rows))
    half, queries_half = gallery.half(), queries.half()
    members = [torch.nonzero(groups == group)[:, 0] for group in range(GROUPS)]
    scores, indices = (torch.empty((count, GROUPS, K), device="cuda", dtype=dtype) for dtype in (torch.float32, torch.int64))
    workspace = torch.empty(_cuda.topk_workspace_bytes(count, rows, GROUPS, K), dtype=torch.uint8, device="cuda")
    stream = torch.cuda.current_stream().cuda_stream

    def ours() -> Any:
        _cuda.topk(queries, [half], offsets, weights, groups, scores, indices, workspace, stream)
        return indices

    def use_torch() -> Any:
        weighted = ((queries_half @ half.T).float() + offsets[:, None]) * weights
        return torch.stack([rows_of[torch.topk(weighted[:, rows_of], K, dim=1).indices] for rows_of in members], dim=1)

    return compare(
        "topk-cuda",
        f"{count}x{rows}x{DIMENSION} float16, k={K} of each of {GROUPS} groups",
        ours,
        {"torch": use_torch},
        verify=lambda a, b: mostly_same(a.cpu().numpy().reshape(-1, K), b.cpu().numpy().reshape(-1, K)),
        goals={"torch": 1.0},
        device=torch.cuda.get_device_name(),
        finish=torch.cuda.synchronize,
    )


def bits(bench: str, scores: Callable[[Floats, Floats], Floats], device: str) -> Row:
    """Whether sixteen queries' scores have the same bits alone and in batches."""
    queries, gallery = problem(16, 10_000)
    return in_batches(bench, lambda rows: scores(queries[rows], gallery), device)


def host_scores(queries: Floats, gallery: Floats) -> Floats:
    return topk(queries, gallery, K).scores


def device_bits() -> Row:
    """`bits` on a GPU."""
    import torch

    def scores(*arrays: Floats) -> Floats:
        queries, gallery = (torch.from_numpy(array).cuda() for array in arrays)
        values: Floats = on_device(queries, gallery.half())()[0].cpu().numpy()
        return values

    return bits("topk-cuda", scores, torch.cuda.get_device_name())


def on_device(queries: Any, half: Any) -> Callable[[], tuple[Any, Any]]:
    """A call of the CUDA kernel with preallocated results: queries in float32, rows in float16."""
    import torch

    from resynth_fast.kernels import _cuda

    count, rows = len(queries), len(half)
    scores, indices = torch.empty((count, 1, K), device="cuda"), torch.empty((count, 1, K), dtype=torch.int64, device="cuda")
    workspace = torch.empty(_cuda.topk_workspace_bytes(count, rows, 1, K), dtype=torch.uint8, device="cuda")
    stream = torch.cuda.current_stream().cuda_stream

    def search() -> tuple[Any, Any]:
        _cuda.topk(queries, [half], None, None, None, scores, indices, workspace, stream)
        return scores[:, 0], indices[:, 0]

    return search


def on_gpu(count: int, rows: int, goals: dict[str, float] | None = None, *, allowed_us: float | None = None) -> list[Row]:
    """Compare with torch, and with cuVS if installed, on the same device with 16-bit rows. `allowed_us`: goal on an H100."""
    import torch

    queries, gallery = (torch.from_numpy(array).cuda() for array in problem(count, rows))
    half, queries_half = gallery.half(), queries.half()
    search = on_device(queries, half)
    others: dict[str, Callable[[], Any]] = {"torch": lambda: torch.topk(queries_half @ half.T, K, dim=1).indices}
    if find_spec("cuvs"):
        from cuvs.neighbors import brute_force

        index, narrow = brute_force.build(half, metric="inner_product"), queries_half
        others["cuvs, float16"] = lambda: torch.as_tensor(brute_force.search(index, narrow, K)[1], device="cuda")
    flat, copied = half.view(-1), torch.empty_like(half).view(-1)
    report = compare(
        "topk-cuda",
        f"{count}x{rows}x{DIMENSION} float16, k={K}",
        lambda: search()[1],
        others,
        verify=lambda a, b: mostly_same(a.cpu().numpy(), b.cpu().numpy()),
        goals=goals or {"torch": 1.0},
        limit=lambda: copied[: len(flat) // 2].copy_(flat[: len(flat) // 2]),  # reads and writes as many bytes together
        device=torch.cuda.get_device_name(),
        finish=torch.cuda.synchronize,
    )
    return report if allowed_us is None else [*report, allowed(report[0], allowed_us)]


def problem(count: int, rows: int) -> tuple[Floats, Floats]:
    rng = np.random.default_rng(0)
    queries, gallery = (rng.standard_normal((n, DIMENSION), dtype=np.float32) for n in (count, rows))
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    gallery /= np.linalg.norm(gallery, axis=1, keepdims=True)
    return queries, gallery


def limit(queries: Floats, gallery: Floats) -> Callable[[], object]:
    """One query: BLAS reads the gallery once. Several: as many multiplications in a product of square matrices."""
    flat = gallery.ravel()
    if len(queries) == 1:
        return lambda: flat @ flat
    side = round((len(queries) * gallery.size) ** (1 / 3))
    square = np.ascontiguousarray(flat[: side * side].reshape(side, side))
    return lambda: square @ square


def same(ours: Indices, theirs: Indices) -> None:
    np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))


def mostly_same(ours: Indices, theirs: Indices) -> None:
    """Assert that 80 % of the rows agree: float16 rounding swaps near neighbours."""
    shared = [len(np.intersect1d(a, b)) / len(a) for a, b in zip(ours, theirs, strict=True)]
    assert np.mean(shared) >= 0.8, shared


def nearest(distances: NDArray[np.floating]) -> Indices:
    """(Q, N) → the K smallest of each row, in order, by NumPy's fastest way."""
    some = np.argpartition(distances, K - 1, axis=1)[:, :K]
    order = np.argsort(np.take_along_axis(distances, some, axis=1), axis=1)
    indices: Indices = np.take_along_axis(some, order, axis=1)
    return indices


def peers(queries: Floats, gallery: Floats) -> dict[str, Callable[[], Indices]]:
    """Exact searches by every installed library, one thread each."""
    if len(queries) == 1:
        searches: dict[str, Callable[[], Indices]] = {"numpy": lambda: nearest(-(gallery @ queries[0])[None])}
    else:
        searches = {"numpy": lambda: nearest(-(queries @ gallery.T))}

    if find_spec("simsimd"):
        import simsimd  # imported first: imported after the others, it misreads every array's type

        if len(queries) == 1:
            searches["simsimd"] = lambda: nearest(-np.asarray(simsimd.dot(queries[0], gallery))[None])
        else:
            searches["simsimd"] = lambda: nearest(-np.asarray(simsimd.cdist(queries, gallery, "dot")))

    if find_spec("torch"):
        import torch

        torch.set_num_threads(1)
        queries_t, gallery_t = torch.from_numpy(queries), torch.from_numpy(gallery)
        searches["torch"] = lambda: np.asarray(torch.topk(queries_t @ gallery_t.T, K, dim=1).indices)

    if find_spec("faiss"):
        import faiss

        faiss.omp_set_num_threads(1)
        index = faiss.IndexFlatIP(DIMENSION)
        index.add(gallery)
        searches["faiss"] = lambda: index.search(queries, K)[1]

    if find_spec("usearch"):
        from usearch.compiled import MetricKind
        from usearch.index import search

        searches["usearch"] = lambda: np.asarray(search(gallery, queries, K, MetricKind.IP, exact=True, threads=1).keys).reshape(-1, K)

    if find_spec("numkong"):
        import numkong

        packed = numkong.dots_pack(gallery)
        searches["numkong, packed before"] = lambda: nearest(-np.asarray(numkong.dots_packed(queries, packed)))

    return searches


if __name__ == "__main__":
    main()
