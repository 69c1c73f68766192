"""Resampling to normalised planes, the JPEG round trip and the whole pixel recipe, against Pillow and torch."""

# First, because it fixes the number of threads, which NumPy reads when it is imported.
from timing import Row, compare, processor, run

# isort: split
import io
from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
from PIL import Image

from resynth_fast.extractors.pixels import PixelRecipe
from resynth_fast.kernels import isa
from resynth_fast.kernels.preprocess import centre_square, jpeg_round_trip, preprocess
from resynth_fast.types import Bytes, Floats

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def main() -> None:
    """Time the input of an extractor's network, then the pixel recipe at the zoo's working size and at the default."""
    run(cpu=lambda: [*planes(1024, 336), *round_trip(64), *round_trip(256), *recipe(512, 64), *recipe(512, 256)])


def device() -> str:
    """Processor and instruction set; SystemExit if the package has no compiled kernels to time."""
    if isa() == "reference":
        raise SystemExit("resynth_fast was built without its extension: nothing to measure")
    return f"{processor()}, {isa()}"


def picture(side: int) -> Bytes:
    """A picture (side, side, 3) with content at every scale."""
    rng = np.random.default_rng(0)
    rough = rng.integers(0, 256, (side // 8, side // 8, 3), np.uint8)
    smooth = np.asarray(Image.fromarray(rough).resize((side, side), Image.Resampling.BICUBIC), np.int16)
    pixels: Bytes = np.clip(smooth + rng.integers(-20, 21, smooth.shape), 0, 255).astype(np.uint8)
    return pixels


def planes(source: int, target: int) -> list[Row]:
    """Bicubic resampling from bytes to normalised float planes."""
    pixels = picture(source)
    mean, std = np.array(MEAN, np.float32)[:, None, None], np.array(STD, np.float32)[:, None, None]
    copy = np.empty_like(pixels)

    def use_pillow() -> Floats:
        resized = np.asarray(Image.fromarray(pixels).resize((target, target), Image.Resampling.BICUBIC))
        values: Floats = (resized.transpose(2, 0, 1).astype(np.float32) / np.float32(255) - mean) / std
        return np.ascontiguousarray(values)

    peers: dict[str, Callable[[], Floats]] = {"pillow": use_pillow}
    if find_spec("torch"):
        import torch

        torch.set_num_threads(1)
        means, stds = torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None]

        def use_torch() -> Floats:
            batch = torch.from_numpy(pixels).permute(2, 0, 1)[None]  # bytes, channels last: torch's quickest path
            resized = torch.nn.functional.interpolate(batch, (target, target), mode="bicubic", antialias=True)
            values: Floats = ((resized[0].float() / 255 - means) / stds).contiguous().numpy()
            return values

        peers["torch"] = use_torch
    return compare(
        "preprocess",
        f"{source}x{source} to 3x{target}x{target}",
        lambda: preprocess([pixels], target, mean=MEAN, std=STD)[0],
        peers,
        verify=within_a_level,
        goals={"pillow": 1.2},
        limit=lambda: np.copyto(copy, pixels),  # reads the same bytes once and writes as many
        device=device(),
    )


def round_trip(side: int) -> list[Row]:
    """A round trip at quality 90. Ours skips the entropy coding, because the result is decoded at once."""
    pixels = picture(side)
    copy = np.empty_like(pixels)
    return compare(
        "jpeg",
        f"{side}x{side}",
        lambda: jpeg_round_trip(pixels, 90),
        {"pillow": lambda: through_pillow(Image.fromarray(pixels))},
        verify=np.testing.assert_array_equal,
        goals={"pillow": 1.0},
        limit=lambda: np.copyto(copy, pixels),
        device=device(),
    )


def recipe(source: int, target: int) -> list[Row]:
    """The pixel recipe, which every probe and resynthesis goes through before its features are extracted."""
    pixels = picture(source)
    ours = PixelRecipe(working_size=target)
    copy = np.empty_like(pixels)

    def use_pillow() -> Bytes:
        square = np.ascontiguousarray(centre_square(pixels, ours.border))
        return through_pillow(Image.fromarray(square).resize((target, target), Image.Resampling.BICUBIC))

    return compare(
        "pixel recipe",
        f"{source}x{source} to {target}x{target}",
        lambda: ours.normalise(pixels),
        {"pillow": use_pillow},
        verify=np.testing.assert_array_equal,
        goals={"pillow": 1.0},
        limit=lambda: np.copyto(copy, pixels),
        device=device(),
    )


def through_pillow(image: Image.Image) -> Bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90, subsampling="4:2:0")
    return np.asarray(Image.open(buffer))


def within_a_level(ours: Floats, theirs: Floats) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1.001 / 255 / min(STD))


if __name__ == "__main__":
    main()
