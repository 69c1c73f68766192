"""The similarity kernel against the paper's SciPy loop, NumPy and every installed nearest-neighbour library."""

# First, because it fixes the number of threads, which NumPy reads when it is imported.
from timing import Row, allowed, compare, measured, processor, run

# isort: split
import os
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
from bits import in_batches
from numpy.typing import NDArray

from resynth_fast.kernels import isa
from resynth_fast.kernels.similarity import similarity
from resynth_fast.types import Floats

DIMENSION = 768
Best = NDArray[np.int64]


def main() -> None:
    """Time the paper's case (one probe, one resynthesis per candidate) and the segmented batch, which no library offers."""
    run(
        cpu=lambda: [*on_cpu(1, 14, 1), *on_cpu(32, 14, 4, best=3.0), *under_load(32, 14, 1), bits("similarity", host_scores, processor())],
        gpu=lambda: [*on_gpu(1, 14, 1, allowed_us=6.0), *on_gpu(32, 14, 4), *on_gpu(1024, 14, 4), device_bits()],
    )


def on_cpu(count: int, candidates: int, per_candidate: int, best: float | None = None) -> list[Row]:
    """Compare with every installed library. `best` is the goal against the fastest peer that takes unnormalised rows."""
    require_extension()
    probes, references, offsets = problem(count, candidates, per_candidate)
    flat = references.ravel()
    others = peers(probes, references, count, candidates)
    return compare(
        "similarity",
        name_of(count, candidates, per_candidate),
        lambda: similarity(probes, references, offsets).best,
        others,
        verify=same_best,
        best=best,
        among=[name for name in others if "before" not in name],
        goals={"scipy": 30.0, "numpy": 1.0, "numpy, normalised before": 1.0},
        limit=lambda: flat @ flat,  # BLAS reads the same bytes once
        device=f"{processor()}, {isa()}",
    )


def under_load(count: int, candidates: int, per_candidate: int) -> list[Row]:
    """The 99th percentile of calls against the median, while a busy loop runs on every core."""
    require_extension()
    probes, references, offsets = problem(count, candidates, per_candidate)
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 1)]
    try:
        times = []
        deadline = time.perf_counter() + 5
        while (start := time.perf_counter()) < deadline:
            similarity(probes, references, offsets)
            times.append(1e6 * (time.perf_counter() - start))
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
    p50, p90, p99 = np.percentile(times, [50, 90, 99])
    case = f"{name_of(count, candidates, per_candidate)}, p99 beside {len(loops)} busy loops"
    return [measured("similarity", case, ours=p99, peer=p50, peer_p90=p90, peer_name="its own median", goal=1 / 3)]


def require_extension() -> None:
    """SystemExit if the package was built without the kernel."""
    if isa() == "reference":
        raise SystemExit("resynth_fast was built without its extension: nothing to measure")


def bits(bench: str, scores: Callable[[Floats, Floats, NDArray[np.int64]], Floats], device: str) -> Row:
    """Whether sixteen probes' scores have the same bits alone and in batches."""
    probes, references, offsets = problem(16, 14, 1)
    own = references.reshape(16, 14, DIMENSION)
    return in_batches(bench, lambda rows: scores(probes[rows], own[rows].reshape(-1, DIMENSION), offsets[: 14 * len(rows) + 1]), device)


def host_scores(probes: Floats, references: Floats, offsets: NDArray[np.int64]) -> Floats:
    return similarity(probes, references, offsets).scores


def device_bits() -> Row:
    """`bits` on a GPU."""
    import torch

    from resynth_fast.kernels import _cuda

    def scores(*arrays: NDArray[np.generic]) -> Floats:
        probes, references, offsets = (torch.from_numpy(array).cuda() for array in arrays)
        cosines = torch.empty((len(probes), 14), device="cuda")
        best, margin = torch.empty(len(probes), dtype=torch.int64, device="cuda"), torch.empty(len(probes), device="cuda")
        _cuda.similarity(probes, references, offsets, "max", cosines, best, margin, torch.cuda.current_stream().cuda_stream)
        values: Floats = cosines.cpu().numpy()
        return values

    return bits("similarity-cuda", scores, torch.cuda.get_device_name())


def on_gpu(count: int, candidates: int, per_candidate: int, allowed_us: float | None = None) -> list[Row]:
    """Compare with torch on the same device, which needs groups of equal size. `allowed_us`: goal for a call on an H100."""
    import torch

    from resynth_fast.kernels import _cuda

    probes, references, offsets = (torch.from_numpy(array).cuda() for array in problem(count, candidates, per_candidate))
    scores = torch.empty((count, candidates), device="cuda")
    best, margin = torch.empty(count, dtype=torch.int64, device="cuda"), torch.empty(count, device="cuda")
    stream = torch.cuda.current_stream().cuda_stream
    cube, flat = references.view(count, -1, DIMENSION), references.view(-1)

    def ours() -> torch.Tensor:
        _cuda.similarity(probes, references, offsets, "max", scores, best, margin, stream)
        return best

    def use_torch() -> torch.Tensor:
        cosines = torch.nn.functional.cosine_similarity(cube, probes[:, None], dim=2)
        return cosines.view(count, candidates, -1).amax(2).argmax(1)

    rows = compare(
        "similarity-cuda",
        name_of(count, candidates, per_candidate),
        ours,
        {"torch": use_torch},
        verify=lambda a, b: same_best(a.cpu(), b.cpu()),
        goals={"torch": 1.0},
        limit=lambda: flat @ flat,  # cuBLAS reads the same bytes once
        device=torch.cuda.get_device_name(),
        finish=torch.cuda.synchronize,
    )
    return rows if allowed_us is None else [*rows, allowed(rows[0], allowed_us)]


def name_of(count: int, candidates: int, per_candidate: int) -> str:
    inner = f"{candidates}" if per_candidate == 1 else f"({candidates}x{per_candidate})"
    return f"{count}x{inner}x{DIMENSION}"


def same_best(ours: object, theirs: object) -> None:
    np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs))


def problem(count: int, candidates: int, per_candidate: int) -> tuple[Floats, Floats, NDArray[np.int64]]:
    rng = np.random.default_rng(0)
    groups = count * candidates
    probes = rng.standard_normal((count, DIMENSION)).astype(np.float32)
    references = rng.standard_normal((groups * per_candidate, DIMENSION)).astype(np.float32)
    return probes, references, np.arange(groups + 1) * per_candidate


def peers(probes: Floats, references: Floats, count: int, candidates: int) -> dict[str, Callable[[], Best]]:
    """Functions that return the best candidate of every probe, without the kernel's scores, margins and checks."""
    cube = references.reshape(count, -1, DIMENSION)  # (P, C * K, d)
    unit_probes, unit_cube = (a / np.linalg.norm(a, axis=-1, keepdims=True) for a in (probes, cube))

    def best_of(cosines: NDArray[np.floating]) -> Best:
        best: Best = cosines.reshape(count, candidates, -1).max(axis=2).argmax(axis=1)
        return best

    def use_numpy() -> Best:
        norms = np.sqrt(np.vecdot(cube, cube) * np.vecdot(probes, probes)[:, None])
        return best_of(np.matvec(cube, probes) / norms)

    def use_numpy_in_a_loop() -> Best:  # takes the norms of a probe's references while they are in the cache
        cosines = np.empty(cube.shape[:2], np.float32)
        for probe, rows, row in zip(probes, cube, cosines, strict=True):
            np.matmul(rows, probe, out=row)
            row /= np.sqrt(np.vecdot(rows, rows))
        return best_of(cosines)

    def use_numpy_on_normalised() -> Best:
        return best_of((unit_cube @ unit_probes[:, :, None])[:, :, 0])

    functions: dict[str, Callable[[], Best]] = {
        "numpy": use_numpy,
        "numpy in a loop": use_numpy_in_a_loop,
        "numpy, normalised before": use_numpy_on_normalised,
    }

    if find_spec("scipy"):
        from scipy.spatial import distance

        def use_scipy() -> Best:  # the paper's loop
            distances = [distance.cosine(row, probe) for probe, rows in zip(probes, cube, strict=True) for row in rows]
            return best_of(-np.array(distances, np.float32))

        functions["scipy"] = use_scipy

    if find_spec("simsimd"):
        import simsimd

        distances = np.empty(cube.shape[:2])

        def use_simsimd() -> Best:
            for probe, rows, row in zip(probes, cube, distances, strict=True):
                simsimd.cosine(probe, rows, out=row)
            return best_of(-distances)

        functions["simsimd"] = use_simsimd

    if find_spec("numkong"):
        import numkong

        def use_numkong() -> Best:
            loop = [np.asarray(numkong.angular(probe, rows)) for probe, rows in zip(probes, cube, strict=True)]
            return best_of(-np.array(loop, np.float32))

        functions["numkong"] = use_numkong

    if find_spec("faiss"):
        import faiss

        banks = []
        for rows in unit_cube:
            banks.append(faiss.IndexFlatIP(DIMENSION))
            banks[-1].add(rows)

        def use_faiss() -> Best:
            nearest = [bank.search(probe[None], 1)[1][0, 0] for bank, probe in zip(banks, unit_probes, strict=True)]
            return np.array(nearest, np.int64) // (cube.shape[1] // candidates)

        functions["faiss, normalised before"] = use_faiss

    if find_spec("torch"):
        import torch

        torch.set_num_threads(1)
        probes_t, cube_t = torch.from_numpy(probes), torch.from_numpy(cube)

        def use_torch() -> Best:
            cosines = torch.nn.functional.cosine_similarity(cube_t, probes_t[:, None], dim=2)
            best: Best = cosines.view(count, candidates, -1).amax(2).argmax(1).numpy()
            return best

        functions["torch"] = use_torch

    return functions


if __name__ == "__main__":
    main()
