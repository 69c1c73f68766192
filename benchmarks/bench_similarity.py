"""The similarity kernel beside the paper's SciPy loop, NumPy, and whatever nearest-neighbour library is installed."""

from timing import Row, compare, processor, report

# isort: split  (timing fixes the number of threads, which NumPy reads once, when it is imported)
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from resynth_fast.similarity import Similarity, backend, similarity

DIMENSION = 768
Floats = NDArray[np.float32]
Best = NDArray[np.int64]


def main() -> None:
    """Refuse to time the fallback: such a run says nothing about the kernel."""
    if backend() == "reference":
        raise SystemExit("resynth_fast was built without its extension: nothing to measure")
    report([*one_probe(), *many_probes()])


def one_probe(candidates: int = 14) -> list[Row]:
    """The paper's case: one probe, one resynthesis a candidate."""
    probes, references, offsets = problem(1, candidates, 1)
    return measure(f"1x{candidates}x{DIMENSION}", probes, references, offsets, peers(probes, references, 1, candidates))


def many_probes(count: int = 32, candidates: int = 14, per_candidate: int = 4) -> list[Row]:
    """A batch, every probe with its own references: the segmented form that no library has."""
    probes, references, offsets = problem(count, candidates, per_candidate)
    case = f"{count}x({candidates}x{per_candidate})x{DIMENSION}"
    return measure(case, probes, references, offsets, peers(probes, references, count, candidates))


def problem(count: int, candidates: int, per_candidate: int) -> tuple[Floats, Floats, NDArray[np.int64]]:
    rng = np.random.default_rng(0)
    groups = count * candidates
    probes = rng.standard_normal((count, DIMENSION)).astype(np.float32)
    references = rng.standard_normal((groups * per_candidate, DIMENSION)).astype(np.float32)
    return probes, references, np.arange(groups + 1) * per_candidate


def measure(case: str, probes: Floats, references: Floats, offsets: NDArray[np.int64], rivals: dict[str, Callable[[], Best]]) -> list[Row]:
    def verify(ours: object, best: object) -> None:
        assert isinstance(ours, Similarity)
        np.testing.assert_array_equal(ours.best, np.asarray(best))

    flat = references.ravel()
    return compare(
        "similarity",
        case,
        lambda: similarity(probes, references, offsets),
        rivals,
        verify=verify,
        goals={"scipy": 30.0, "numpy": 1.0, "numpy, normalised before": 1.0},
        limit=lambda: flat @ flat,  # BLAS reading the same bytes once
        device=f"{processor()}, {backend()}",
    )


def peers(probes: Floats, references: Floats, count: int, candidates: int) -> dict[str, Callable[[], Best]]:
    """Each finds the best candidate of every probe; none of them gives scores, margin and checks beside it."""
    cube = references.reshape(count, -1, DIMENSION)  # (P, C * K, d)
    unit_probes, unit_cube = (a / np.linalg.norm(a, axis=-1, keepdims=True) for a in (probes, cube))

    def best_of(cosines: Floats) -> Best:
        return cosines.reshape(count, candidates, -1).max(axis=2).argmax(axis=1)

    def use_numpy() -> Best:
        dots = (cube @ probes[:, :, None])[:, :, 0]
        norms = np.sqrt(np.einsum("pnd,pnd->pn", cube, cube) * np.einsum("pd,pd->p", probes, probes)[:, None])
        return best_of(dots / norms)

    def use_numpy_on_normalised() -> Best:
        return best_of((unit_cube @ unit_probes[:, :, None])[:, :, 0])

    found: dict[str, Callable[[], Best]] = {"numpy": use_numpy, "numpy, normalised before": use_numpy_on_normalised}

    if find_spec("scipy"):
        from scipy.spatial import distance

        def use_scipy() -> Best:  # the paper's loop
            distances = [distance.cosine(row, probe) for probe, rows in zip(probes, cube, strict=True) for row in rows]
            return best_of(-np.array(distances, np.float32))

        found["scipy"] = use_scipy

    if find_spec("simsimd"):
        import simsimd

        def use_simsimd() -> Best:
            distances = [np.asarray(simsimd.cdist(probe[None], rows, "cosine")) for probe, rows in zip(probes, cube, strict=True)]
            return best_of(-np.array(distances, np.float32))

        found["simsimd"] = use_simsimd

    if find_spec("faiss"):
        import faiss

        banks = []
        for rows in unit_cube:
            banks.append(faiss.IndexFlatIP(DIMENSION))
            banks[-1].add(rows)

        def use_faiss() -> Best:
            nearest = [bank.search(probe[None], 1)[1][0, 0] for bank, probe in zip(banks, unit_probes, strict=True)]
            return np.array(nearest) // (cube.shape[1] // candidates)

        found["faiss, normalised before"] = use_faiss

    if find_spec("torch"):
        import torch

        torch.set_num_threads(1)
        probes_t, cube_t = torch.from_numpy(probes), torch.from_numpy(cube)

        def use_torch() -> Best:
            cosines = torch.nn.functional.cosine_similarity(cube_t, probes_t[:, None], dim=2)
            best: Best = cosines.view(count, candidates, -1).amax(2).argmax(1).numpy()
            return best

        found["torch"] = use_torch

    return found


if __name__ == "__main__":
    main()
