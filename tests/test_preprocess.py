"""The preprocess kernels, in every form that this machine can run, against Pillow and libjpeg."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from resynth_fast.kernels import _native
from resynth_fast.kernels.preprocess import FILTERS, Filter, centre_square, jpeg_round_trip, resize, resize_to_unit, to_uint8

SIDES = (1, 7, 31, 33, 65, 97)
KINDS = ("noise", "black and white", "constant", "smooth")
ATOL = 1e-6  # of float32 values of about 1

pytestmark = pytest.mark.usefixtures("every_isa")


def picture(kind: str, height: int, width: int, seed: int) -> np.ndarray:
    """(height, width, 3) uint8; black beside white makes every filter overshoot and every clip work."""
    rng = np.random.default_rng(seed)
    if kind == "noise":
        return rng.integers(0, 256, (height, width, 3), np.uint8)
    if kind == "black and white":
        return (rng.integers(0, 2, (height, width, 3)) * 255).astype(np.uint8)
    if kind == "constant":
        return np.broadcast_to(rng.integers(0, 256, 3, np.uint8), (height, width, 3)).copy()
    return np.asarray(Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8)).resize((width, height), Image.Resampling.BICUBIC))


def pillow(pixels: np.ndarray, height: int, width: int, filter: Filter) -> np.ndarray:
    """Rows first, then columns, whichever order one call would choose."""
    resampling, image = Image.Resampling[filter.upper()], Image.fromarray(pixels)
    return np.asarray(image.resize((width, image.height), resampling).resize((width, height), resampling))


def libjpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
    return np.asarray(Image.open(buffer))


sides = st.sampled_from(SIDES) | st.integers(1, 130)
pictures = st.builds(picture, st.sampled_from(KINDS), sides, sides, st.integers(0, 2**32 - 1))


@given(pictures, sides, sides, st.sampled_from(FILTERS))
def test_bytes_are_pillows_to_the_last_bit(pixels: np.ndarray, height: int, width: int, filter: Filter) -> None:
    np.testing.assert_array_equal(resize(pixels, height, width, filter=filter), pillow(pixels, height, width, filter))


@pytest.mark.parametrize("filter", FILTERS)
@pytest.mark.parametrize(("source", "target"), [(300, 64), (64, 97), (1024, 336), (97, 97), (1, 8), (513, 256)])
def test_a_square_to_a_square_is_one_call_of_pillows(source: int, target: int, filter: Filter) -> None:
    pixels = picture("noise", source, source, source)
    want = Image.fromarray(pixels).resize((target, target), Image.Resampling[filter.upper()])
    np.testing.assert_array_equal(resize(pixels, target, target, filter=filter), np.asarray(want))


@given(pictures, sides, sides, st.sampled_from(FILTERS))
def test_floats_are_those_of_pillows_mode_f(pixels: np.ndarray, height: int, width: int, filter: Filter) -> None:
    values = pixels.astype(np.float32) / np.float32(255) * 2 - 1
    got = resize(values, height, width, filter=filter)
    assert got.dtype == np.float32
    for channel in range(3):
        want = pillow(np.ascontiguousarray(values[..., channel]), height, width, filter)
        np.testing.assert_allclose(got[..., channel], want, rtol=0, atol=ATOL)


@given(pictures, sides)
def test_pictures_are_fitted_like_pillow_in_floating_point(pixels: np.ndarray, side: int) -> None:
    square = centre_square(pixels, 0.1)  # a view, whose rows are further apart than they are long
    [found] = resize_to_unit([square], side)
    for channel in range(3):
        unit = square[..., channel].astype(np.float32) / np.float32(255)
        np.testing.assert_allclose(found[channel], pillow(unit, side, side, "bicubic").clip(0, 1), rtol=0, atol=ATOL)
    np.testing.assert_array_equal(resize_to_unit([square], len(square))[0], square.transpose(2, 0, 1) / np.float32(255))


def test_levels_are_the_nearest_ones_and_of_two_the_even_one() -> None:
    between = np.arange(512, dtype=np.float32) / np.float32(510)  # 0, half a level, one level, …
    around = np.concatenate([np.nextafter(between, -1), between, np.nextafter(between, 2), [-9, -0.0, 1.5, 1e30]]).astype(np.float32)
    image = np.resize(around, (2, 3, 23, 40))
    got = to_uint8(image.transpose(0, 1, 3, 2))  # any order in memory
    want = np.rint(image.clip(0, 1) * np.float32(255)).astype(np.uint8)
    np.testing.assert_array_equal(got, want.transpose(0, 3, 2, 1))


@settings(max_examples=200)
@given(pictures, st.sampled_from([1, 10, 49, 50, 75, 90, 95, 100]) | st.integers(1, 100))
def test_the_round_trip_is_libjpegs(pixels: np.ndarray, quality: int) -> None:
    got = jpeg_round_trip(pixels, quality)
    assert np.abs(got.astype(int) - libjpeg(pixels, quality)).max() <= 1


@pytest.mark.parametrize("side", [8, 16, 40, 64, 256])
@pytest.mark.parametrize("kind", KINDS)
def test_at_quality_90_the_round_trip_is_libjpegs_to_the_last_bit(kind: str, side: int) -> None:
    pixels = picture(kind, side, side, side)
    np.testing.assert_array_equal(jpeg_round_trip(pixels, 90), libjpeg(pixels, 90))


def test_a_step_of_one_pixel_and_less_is_sampled_and_not_skipped() -> None:
    pixels = picture("noise", 1, 4000, 0)
    np.testing.assert_allclose(resize(pixels, 1, 1, filter="box").ravel(), pixels.mean((0, 1)), atol=0.51)


def test_cropped_mirrored_and_read_only_arrays_give_the_same_and_stay_unchanged() -> None:
    whole = picture("noise", 80, 90, 0)
    for view in (whole[5:60, 7:70], whole[:, ::-1], whole[::-1], whole[::2, ::3], whole[..., ::-1], whole.transpose(1, 0, 2)):
        view.setflags(write=False)
        copy = np.ascontiguousarray(view)
        np.testing.assert_array_equal(resize(view, 33, 31), resize(copy, 33, 31))
        np.testing.assert_array_equal(jpeg_round_trip(view, 75), jpeg_round_trip(copy, 75))
        np.testing.assert_array_equal(resize_to_unit([view], 31), resize_to_unit([copy], 31))
        np.testing.assert_array_equal(view, copy)


@pytest.mark.parametrize(
    ("pixels", "error", "message"),
    [
        (np.zeros((4, 4, 3)), TypeError, "pixels is a 3-D float64 array; it must be a 3-D uint8 or float32 array"),
        (np.zeros((4, 4), np.uint8), TypeError, "pixels is a 2-D uint8 array; it must be a 3-D uint8 or float32 array"),
        ([[0]], TypeError, "pixels is a list; it must be a numpy.ndarray"),
        (np.zeros((4, 4, 4), np.uint8), ValueError, r"pixels has shape \(4, 4, 4\); it must be \(H, W, 3\), H and W at least 1"),
        (np.zeros((0, 4, 3), np.uint8), ValueError, r"pixels has shape \(0, 4, 3\); it must be \(H, W, 3\), H and W at least 1"),
    ],
)
def test_other_arrays_are_refused(pixels: np.ndarray, error: type[Exception], message: str) -> None:
    for call in (lambda: resize(pixels, 8, 8), lambda: jpeg_round_trip(pixels, 90)):
        with pytest.raises(error, match=f"^{message}$"):
            call()


def test_settings_that_are_not_allowed_are_named() -> None:
    pixels = picture("noise", 8, 8, 0)
    with pytest.raises(ValueError, match=r"^filter is 'cubic'; it must be 'box', 'bilinear', 'bicubic' or 'lanczos'$"):
        resize(pixels, 8, 8, filter="cubic")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^size is 0 x 8; sides must be at least 1 px$"):
        resize(pixels, 0, 8)
    with pytest.raises(ValueError, match=r"^quality is 101; it must be 1 … 100$"):
        jpeg_round_trip(pixels, 101)
    with pytest.raises(TypeError, match=r"^pixels is a float32 array; it must be uint8$"):
        jpeg_round_trip(pixels.astype(np.float32), 90)


def test_the_kernels_refuse_arguments_that_do_not_fit() -> None:
    pixels = picture("noise", 8, 9, 0)
    with pytest.raises(ValueError, match=r"^pixels has strides \(27, -3, 1\); within a row they must be \(3, 1\)$"):
        _native.resize(pixels[:, ::-1], "box", np.empty((4, 5, 3), np.uint8))
    with pytest.raises(ValueError, match=r"^out has shape \(4, 5, 4\); it must have 3 channels last$"):
        _native.resize(pixels, "box", np.empty((4, 5, 4), np.uint8))
    with pytest.raises(ValueError, match=r"^out has shape \(8, 8, 3\); it must have \(8, 9, 3\), as pixels has$"):
        _native.jpeg_round_trip(pixels, 90, np.empty((8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match=r"out has shape \(4, 5, 3\); it must have 3 channels first"):
        _native.fit(pixels, "box", np.empty((4, 5, 3), np.float32))
    with pytest.raises(ValueError, match=r"image has shape \(1, 4, 5, 6\); it must have 3 channels first"):
        _native.levels(np.zeros((1, 4, 5, 6), np.float32), np.empty((1, 5, 6, 3), np.uint8))
    with pytest.raises(ValueError, match=r"out has shape \(1, 6, 5, 3\); it must have \(1, 5, 6, 3\), as image has"):
        _native.levels(np.zeros((1, 3, 5, 6), np.float32), np.empty((1, 6, 5, 3), np.uint8))
    with pytest.raises(TypeError, match="incompatible function arguments"):
        _native.resize(pixels, "box", np.empty((4, 5, 3), np.float32))  # type: ignore[call-overload]
