"""Resampling, rounding to bytes, the JPEG round trip and the whole pixel recipe, against Pillow, NumPy and torch."""

# First, because it fixes the number of threads, which NumPy reads when it is imported.
from timing import Row, compare, processor, run

# isort: split
import io
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
from PIL import Image

from resynth_fast.extractors.pixels import PixelRecipe
from resynth_fast.kernels import isa
from resynth_fast.kernels.preprocess import centre_square, jpeg_round_trip, resize, resize_to_unit, to_uint8
from resynth_fast.types import Bytes, Floats


def main() -> None:
    """Time each kernel, then the pixel recipe at the zoo's working size and at the default."""
    run(
        cpu=lambda: [
            *resizing(1024, 336),
            *planes(256, 224),
            *levels(4, 256),
            *round_trip(64),
            *round_trip(256),
            *recipe(512, 64),
            *recipe(512, 256),
        ]
    )


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


def resizing(source: int, target: int) -> list[Row]:
    """Bicubic resampling from bytes to bytes."""
    pixels = picture(source)
    copy = np.empty_like(pixels)
    peers: dict[str, Callable[[], Bytes]] = {
        "pillow": lambda: np.asarray(Image.fromarray(pixels).resize((target, target), Image.Resampling.BICUBIC))
    }
    if torch := one_thread_torch():

        def use_torch() -> Bytes:
            batch = torch.from_numpy(pixels).permute(2, 0, 1)[None]  # bytes, channels last: torch's quickest path
            resized = torch.nn.functional.interpolate(batch, (target, target), mode="bicubic", antialias=True)
            result: Bytes = resized[0].permute(1, 2, 0).contiguous().numpy()
            return result

        peers["torch"] = use_torch
    return compare(
        "resize",
        f"{source}x{source} to {target}x{target}",
        lambda: resize(pixels, target, target),
        peers,
        verify=within_a_level,
        goals={"pillow": 1.2},
        limit=lambda: np.copyto(copy, pixels),  # reading the same bytes once, and writing as many
        device=device(),
    )


def planes(source: int, target: int) -> list[Row]:
    """Bicubic resampling from bytes to float planes in [0, 1], without an 8-bit intermediate: the input of an extractor's network."""
    pixels = picture(source)
    copy = np.empty_like(pixels)

    def use_pillow() -> Floats:
        channels = [Image.fromarray(pixels[..., channel].astype(np.float32)) for channel in range(3)]
        resized = [np.asarray(channel.resize((target, target), Image.Resampling.BICUBIC)) for channel in channels]
        values: Floats = (np.stack(resized) / np.float32(255)).clip(0, 1)
        return values

    peers: dict[str, Callable[[], Floats]] = {"pillow": use_pillow}
    if torch := one_thread_torch():

        def use_torch() -> Floats:
            batch = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
            resized = torch.nn.functional.interpolate(batch, (target, target), mode="bicubic", antialias=True)
            values: Floats = resized[0].clamp(0, 1).contiguous().numpy()
            return values

        peers["torch"] = use_torch
    return compare(
        "resize to unit",
        f"{source}x{source} to 3x{target}x{target}",
        lambda: resize_to_unit([pixels], target)[0],
        peers,
        verify=within_rounding,
        goals={"pillow": 1.2},
        limit=lambda: np.copyto(copy, pixels),
        device=device(),
    )


def levels(count: int, side: int) -> list[Row]:
    """Round the output of a decoder to pictures."""
    image = np.random.default_rng(0).uniform(-0.05, 1.05, (count, 3, side, side)).astype(np.float32)
    copy = np.empty_like(image)
    return compare(
        "to uint8",
        f"{count}x3x{side}x{side}",
        lambda: to_uint8(image),
        {"numpy": lambda: np.rint(image.transpose(0, 2, 3, 1).clip(0, 1) * 255).astype(np.uint8, order="C")},
        verify=np.testing.assert_array_equal,
        goals={"numpy": 1.2},
        limit=lambda: np.copyto(copy, image),
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


def one_thread_torch() -> Any:
    """The torch module on one thread; None where it is not installed."""
    if not find_spec("torch"):
        return None
    import torch

    torch.set_num_threads(1)
    return torch


def within_a_level(ours: Bytes, theirs: Bytes) -> None:
    np.testing.assert_allclose(ours.astype(int), theirs, rtol=0, atol=1)


def within_rounding(ours: Floats, theirs: Floats) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


if __name__ == "__main__":
    main()
