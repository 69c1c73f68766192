"""The texture kernel against its NumPy twin, which uses whole-array operations and NumPy's FFT as a user would."""

# First, because it fixes the number of threads, which NumPy reads when it is imported.
from timing import Row, compare, processor, run

# isort: split
import numpy as np
from numpy.typing import NDArray

from resynth_fast.extractors.texture import TextureExtractor
from resynth_fast.kernels import isa
from resynth_fast.kernels.twins import texture as twin
from resynth_fast.types import Floats


def main() -> None:
    """Time a picture of the zoo's working size and one of the default working size."""
    run(cpu=lambda: [*on_cpu(64), *on_cpu(256)])


def on_cpu(side: int) -> list[Row]:
    """Time the compiled kernel. SystemExit if the package was built without it."""
    if isa() == "reference":
        raise SystemExit("resynth_fast was built without its extension: nothing to measure")
    batch = picture(side)[None]
    extractor = TextureExtractor(side)
    codes = np.random.default_rng(0).integers(0, 125, counts(side))
    return compare(
        "texture",
        f"1x{side}x{side}",
        lambda: extractor.extract(batch)[0],
        {"numpy": lambda: np.concatenate(list(twin.describe(batch[0]).values()))},
        verify=same,
        goals={"numpy": 6.0},
        limit=lambda: np.bincount(codes),  # only counts
        device=f"{processor()}, {isa()}",
    )


def picture(side: int) -> NDArray[np.uint8]:
    """(side, side, 3): noise whose neighbouring pixels are similar, as in pictures."""
    rough = np.random.default_rng(0).integers(0, 256, (side + 2, side + 2, 3))
    smooth = sum(rough[y : y + side, x : x + side] for y in range(3) for x in range(3)) // 9
    return np.asarray(smooth, np.uint8)


def counts(side: int) -> int:
    """Number of values in histograms: 8 residual maps at two scales, 3 scales of patterns, 6 maps of chroma changes."""
    pixels = side * side
    return 8 * (pixels + pixels // 4) + pixels + pixels // 4 + pixels // 16 + 6 * pixels


def same(ours: Floats, theirs: Floats) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-6)


if __name__ == "__main__":
    main()
