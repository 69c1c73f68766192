"""The finite kernel against `np.isfinite(values).all()`, which allocates an array of flags."""

# First, because it fixes the number of threads, which NumPy reads when it is imported.
from timing import Row, compare, processor, run

# isort: split
import numpy as np

from resynth_fast.kernels import isa
from resynth_fast.kernels.finite import all_finite
from resynth_fast.types import Floats

SHAPES = {"latents of 8 pictures, 1024 px": (8, 16, 128, 128), "picture of 1024 px": (1, 3, 1024, 1024), "zoo latents": (8, 4, 16, 16)}


def main() -> None:
    """Time the check of a walk's latents and of a decoder's picture."""
    run(cpu=on_cpu)


def on_cpu() -> list[Row]:
    """Time the compiled kernel. SystemExit if the package was built without it."""
    if isa() == "reference":
        raise SystemExit("resynth_fast was built without its extension: nothing to measure")
    return [row for case, shape in SHAPES.items() for row in one(case, np.random.default_rng(0).standard_normal(shape, np.float32))]


def one(case: str, values: Floats) -> list[Row]:
    return compare(
        "finite",
        case,
        lambda: all_finite(values),
        {"numpy": lambda: bool(np.isfinite(values).all())},
        verify=same,
        goals={"numpy": 1.0},
        limit=lambda: values.sum(),  # reads every value once
        device=f"{processor()}, {isa()}",
    )


def same(ours: bool, theirs: bool) -> None:
    assert ours is theirs is True


if __name__ == "__main__":
    main()
