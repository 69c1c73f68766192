"""The pixel recipe: same content, same result, whatever the size, border and codec it came in."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from resynth_fast.errors import ConfigError, InputError
from resynth_fast.extractors.pixels import PixelRecipe


def scene(height: int, width: int) -> np.ndarray:
    """(height, width, 3) uint8: a few smooth waves, the same content at every size."""
    y, x = np.mgrid[0:height, 0:width] + 0.5
    y, x = y / height, x / width
    waves = [np.sin(9 * x + 4 * y), np.cos(11 * y), np.sin(7 * x * y + 1)]
    return np.stack([127.5 + 100 * wave for wave in waves], -1).astype(np.uint8)


def difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.abs(a.astype(int) - b.astype(int))


@pytest.mark.parametrize("size", [8, 64, 256])
@pytest.mark.parametrize("shape", [(300, 300), (97, 211), (513, 260), (32, 40)])
def test_the_result_is_a_square_of_the_working_size(size: int, shape: tuple[int, int]) -> None:
    result = PixelRecipe(working_size=size).normalise(scene(*shape))
    assert result.shape == (size, size, 3)
    assert result.dtype == np.uint8


def test_the_result_hardly_depends_on_the_size_of_the_original() -> None:
    recipe = PixelRecipe(working_size=64)
    results = [recipe.normalise(scene(side, side)) for side in (200, 400, 999)]
    for result in results[1:]:
        assert difference(results[0], result).mean() < 1


def test_only_the_centre_square_without_its_border_counts() -> None:
    recipe = PixelRecipe(working_size=64, border=0.05)
    wide = np.zeros((100, 161, 3), np.uint8)
    wide[5:95, 35:125] = scene(90, 90)  # (161 - 100) // 2 + 5
    bare = PixelRecipe(working_size=64, border=0).normalise(scene(90, 90))
    assert np.array_equal(recipe.normalise(wide), bare)
    framed = wide.copy()
    framed[:5], framed[95:], framed[:, :35], framed[:, 125:] = 255, 255, 255, 255
    assert np.array_equal(recipe.normalise(framed), bare)


def test_a_picture_of_the_working_size_is_left_alone_without_border_and_codec() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    recipe = PixelRecipe(working_size=64, border=0, jpeg_quality=None)
    assert np.array_equal(recipe.normalise(pixels), pixels)


def test_shrinking_averages_instead_of_skipping() -> None:
    checks = np.indices((256, 256)).sum(0) % 2 * 255
    pixels = np.repeat(checks[..., None], 3, 2).astype(np.uint8)
    result = PixelRecipe(working_size=32, border=0, jpeg_quality=None).normalise(pixels)
    assert difference(result, np.full_like(result, 127)).max() <= 3


def test_jpeg_changes_noise_and_leaves_smooth_content() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    for pixels, least, most in ((noise, 20, 100), (scene(64, 64), 0, 2)):
        without = PixelRecipe(working_size=64, border=0, jpeg_quality=None).normalise(pixels)
        coded = PixelRecipe(working_size=64, border=0).normalise(pixels)
        assert least <= difference(without, coded).mean() <= most


def test_the_codec_is_jpeg_90_with_half_the_chroma() -> None:
    pixels = scene(64, 64)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90, subsampling=2)
    assert np.array_equal(PixelRecipe(working_size=64, border=0).normalise(pixels), np.asarray(Image.open(buffer)))


def test_an_earlier_jpeg_is_nearly_forgotten() -> None:
    pixels = scene(300, 300)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
    recipe = PixelRecipe(working_size=64)
    assert difference(recipe.normalise(pixels), recipe.normalise(np.asarray(Image.open(buffer)))).mean() < 1


def test_views_and_read_only_arrays_are_accepted_and_unchanged() -> None:
    pixels = scene(100, 100)
    mirrored = pixels[:, ::-1]
    mirrored.setflags(write=False)
    before = mirrored.copy()
    recipe = PixelRecipe(working_size=64)
    assert np.array_equal(recipe.normalise(mirrored), recipe.normalise(before))
    assert np.array_equal(mirrored, before)


@pytest.mark.parametrize(
    ("field", "value"),
    [("working_size", 7), ("working_size", 5000), ("border", -0.1), ("border", 0.3), ("border", float("nan")), ("jpeg_quality", 0)],
)
def test_a_setting_out_of_range_is_named(field: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"{field} is {value}; it must be"):
        PixelRecipe(**{"working_size": 64, field: value})


@pytest.mark.parametrize(
    "pixels", [np.zeros((64, 64), np.uint8), np.zeros((64, 64, 4), np.uint8), np.zeros((64, 64, 3)), np.zeros((0, 9, 3), np.uint8)]
)
def test_other_arrays_are_refused(pixels: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"must be \(H, W, 3\) uint8"):
        PixelRecipe(working_size=64).normalise(pixels)
