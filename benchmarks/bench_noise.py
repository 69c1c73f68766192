"""The noise kernel against every installed generator of float32 normals."""

# First, because it fixes the number of threads, which NumPy reads when it is imported.
from timing import Row, compare, processor, run

# isort: split
from collections.abc import Callable
from importlib.util import find_spec
from math import prod

import numpy as np

from resynth_fast.kernels import isa
from resynth_fast.kernels.noise import normal_rows
from resynth_fast.types import Floats


def main() -> None:
    """Time one picture's latents (512 px, an autoencoder of factor 8) and a batch of 16 pictures of 1024 px."""
    shapes = ((1, 4, 64, 64), (16, 4, 128, 128))
    run(cpu=lambda: [row for shape in shapes for row in on_cpu(shape)], gpu=lambda: [row for shape in shapes for row in on_gpu(shape)])


def on_cpu(shape: tuple[int, ...]) -> list[Row]:
    """Time the compiled kernel. SystemExit if the package was built without it."""
    if isa() == "reference":
        raise SystemExit("resynth_fast was built without its extension: nothing to measure")
    seeds, calls, written = list(range(shape[0])), [0] * shape[0], np.empty(shape, np.float32)
    return compare(
        "noise",
        "x".join(map(str, shape)),
        lambda: normal_rows(seeds, calls, shape[1:]),
        peers(shape),
        verify=lambda ours, theirs: standard_normal(ours, theirs),
        goals={"numpy": 3.0},
        limit=lambda: written.fill(0.5),  # only writes as many bytes
        device=f"{processor()}, {isa()}",
    )


def on_gpu(shape: tuple[int, ...]) -> list[Row]:
    """Compare with torch's generator, which is Philox too, on the same device."""
    import torch

    from resynth_fast.kernels import _cuda

    rows, elements = shape[0], prod(shape[1:])
    seeds = torch.arange(rows, device="cuda").to(torch.uint64)
    calls = torch.zeros(rows, dtype=torch.int32, device="cuda").view(torch.uint32)
    out, theirs = torch.empty((rows, elements), device="cuda"), torch.empty(shape, device="cuda")
    stream = torch.cuda.current_stream().cuda_stream

    def ours() -> torch.Tensor:
        _cuda.noise(seeds, calls, out, stream)
        return out

    return compare(
        "noise-cuda",
        "x".join(map(str, shape)),
        ours,
        {"torch": theirs.normal_},
        verify=lambda ours, theirs: standard_normal(ours.cpu().numpy(), theirs.cpu().numpy()),
        goals={"torch": 1.0},
        limit=lambda: theirs.fill_(0.5),
        device=torch.cuda.get_device_name(),
        finish=torch.cuda.synchronize,
    )


def peers(shape: tuple[int, ...]) -> dict[str, Callable[[], Floats]]:
    """Generators that write into preallocated memory. NumPy's fastest is a ziggurat over PCG-64."""
    rng, philox = np.random.default_rng(0), np.random.Generator(np.random.Philox(0))
    out = np.empty(shape, np.float32)
    generators: dict[str, Callable[[], Floats]] = {
        "numpy": lambda: rng.standard_normal(dtype=np.float32, out=out),
        "numpy, Philox": lambda: philox.standard_normal(dtype=np.float32, out=out),
    }
    if find_spec("torch"):
        import torch

        torch.set_num_threads(1)
        tensor = torch.empty(shape)

        def use_torch() -> Floats:
            values: Floats = tensor.normal_().numpy()
            return values

        generators["torch"] = use_torch
    return generators


def standard_normal(*samples: Floats) -> None:
    """Assert that mean and variance lie within four standard errors; two different generators agree on nothing else."""
    for values in samples:
        wide = values.astype(np.float64)
        assert abs(wide.mean()) < 4 / wide.size**0.5, wide.mean()
        assert abs(wide.var() - 1) < 4 * (2 / wide.size) ** 0.5, wide.var()


if __name__ == "__main__":
    main()
