"""The weightless descriptor: what its numbers mean, on pictures small enough to know the answer, and every form of its
kernel that this machine can run against the float64 twin."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from resynth_fast.errors import ConfigError, InputError
from resynth_fast.extractors.texture import TextureExtractor, describe
from resynth_fast.kernels import _native
from resynth_fast.kernels.twins import texture as twin
from resynth_fast.kernels.twins.texture import BLOCKS, Planes

SIZES = [32, 40, 64, 72, 256]
UNIT_ROWS = {"srm": 125, "srm_half": 125, "lbp": 256, "chroma": 81}  # square roots of frequencies
ATOL = 2e-6  # of a float32 that a double was rounded to: a unit in its last place, as all are below 16

pytestmark = pytest.mark.usefixtures("every_isa")


def noise(side: int = 64, seed: int = 0) -> np.ndarray:
    """(side, side, 3) uint8: noise with neighbours that resemble each other, as in pictures."""
    rough = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    return np.asarray(Image.fromarray(rough).filter(ImageFilter.BoxBlur(1)))


def grey(luma: np.ndarray) -> np.ndarray:
    return np.repeat(np.asarray(luma, np.uint8)[..., None], 3, 2)


def picture(kind: str, side: int, seed: int) -> np.ndarray:
    """(side, side, 3) uint8 of a kind that is hard on some statistic: ties, no variance, one outlier, full range."""
    rng = np.random.default_rng(seed)
    y, x = np.indices((side, side))
    step = int(rng.integers(1, 9))
    if kind == "noise":
        return noise(side, seed)
    if kind == "white noise":
        return rng.integers(0, 256, (side, side, 3), np.uint8)
    if kind == "black and white":
        return (rng.integers(0, 2, (side, side, 3)) * 255).astype(np.uint8)
    if kind == "constant":
        return np.broadcast_to(rng.integers(0, 256, 3, np.uint8), (side, side, 3)).copy()
    if kind == "outlier":
        flat = np.broadcast_to(rng.integers(0, 256, 3, np.uint8), (side, side, 3)).copy()
        flat[tuple(rng.integers(0, side, 2))] ^= 255
        return flat
    if kind == "ramp":
        return grey((step * x + y) % 256)
    if kind == "stripes":
        return grey(x // step % 2 * 255)
    assert kind == "checks"
    return (((x // step + y // step) % 2)[..., None] * rng.integers(0, 256, 3)).astype(np.uint8)


KINDS = ["noise", "white noise", "black and white", "constant", "outlier", "ramp", "stripes", "checks"]


@settings(max_examples=40)
@given(st.sampled_from(KINDS), st.sampled_from([32, 40, 48, 56, 64, 88, 104, 136]), st.integers(0, 2**32 - 1))
def test_matches_the_twin(kind: str, side: int, seed: int) -> None:
    pixels = picture(kind, side, seed)
    got, want = describe(pixels), twin.describe(pixels)
    for name in want:
        if name in UNIT_ROWS:  # every count from 0 to the number of pixels has a root of its own: the counts are equal
            np.testing.assert_array_equal(got[name], want[name], err_msg=name)
        else:
            np.testing.assert_allclose(got[name], want[name], rtol=0, atol=ATOL, err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_matches_the_twin_at_256_px(kind: str) -> None:
    pixels = picture(kind, 256, 7)
    got, want = describe(pixels), twin.describe(pixels)
    for name in want:
        np.testing.assert_allclose(got[name], want[name], rtol=0, atol=0 if name in UNIT_ROWS else ATOL, err_msg=name)


@pytest.mark.parametrize("side", SIZES)
def test_every_size_gives_finite_blocks_of_the_stated_sizes(side: int) -> None:
    extractor = TextureExtractor(side)
    blocks = describe(noise(side))
    assert tuple(blocks) == extractor.blocks == tuple(BLOCKS)
    assert {name: len(values) for name, values in blocks.items()} == extractor.block_sizes
    assert extractor.dimension == sum(map(len, blocks.values()))
    assert all(values.dtype == np.float32 and np.isfinite(values).all() for values in blocks.values())
    for name, k in UNIT_ROWS.items():
        np.testing.assert_allclose((blocks[name].reshape(-1, k) ** 2).sum(1), 1, rtol=1e-5)


def test_at_256_px_there_are_2945_numbers() -> None:
    sizes = dict(TextureExtractor(256).block_sizes)
    assert sizes == {
        "srm": 500,
        "srm_half": 500,
        "residual": 40,
        "residual_half": 40,
        "lbp": 768,
        "dct": 256,
        "wavelet": 126,
        "gradient": 88,
        "colour": 77,
        "chroma": 486,
        "spectrum": 64,
    }
    assert TextureExtractor().dimension == 2945


@pytest.mark.parametrize("side", [32, 64, 256])
@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (255, 0, 0), (13, 200, 77)])
def test_constant_pictures_are_finite_and_have_no_texture(side: int, colour: tuple[int, int, int]) -> None:
    blocks = describe(np.full((side, side, 3), colour, np.uint8))
    assert all(np.isfinite(values).all() for values in blocks.values())
    srm = blocks["srm"].reshape(4, 5, 5, 5)
    assert (srm[:, 2, 2, 2] == 1).all()
    np.testing.assert_allclose(blocks["residual"].reshape(8, 5), [[np.log(0.1), np.log(0.1), 0, 1, 0]] * 8, rtol=1e-6)
    assert (blocks["lbp"].reshape(3, 256)[:, 0] == 1).all()


def test_a_ramp_has_no_variance_left_to_take_the_root_of() -> None:
    ramp = grey(np.tile(np.arange(256), (256, 1)))
    assert all(np.isfinite(values).all() for values in describe(ramp).values())


def test_a_row_does_not_depend_on_its_batch() -> None:
    extractor = TextureExtractor(64)
    batch = np.stack([noise(seed=k) for k in range(5)] + [np.zeros((64, 64, 3), np.uint8)])
    together = extractor.extract(batch)
    assert together.shape == (6, extractor.dimension)
    for k, pixels in enumerate(batch):
        assert np.array_equal(extractor.extract(batch[k : k + 1])[0], together[k])
        assert np.array_equal(np.concatenate(list(describe(pixels).values())), together[k])
    assert np.array_equal(extractor.extract(batch[::-1]), together[::-1])
    assert extractor.extract(batch[:0]).shape == (0, extractor.dimension)


def test_strided_and_read_only_pictures_are_described_alike() -> None:
    wide = np.ascontiguousarray(np.concatenate([noise(), noise()], 1))
    view = wide[:, :64]
    view.setflags(write=False)
    for name, values in describe(view).items():
        assert np.array_equal(values, describe(noise())[name]), name


def test_co_occurrences_equal_a_manual_count() -> None:
    pixels = noise(32)
    luma = [[int(np.dot(pixel, (299, 587, 114))) for pixel in row] for row in pixels.tolist()]
    counts = np.zeros((5, 5, 5))
    for lines in (luma, list(map(list, zip(*luma, strict=True)))):
        for line in lines:
            second = [c - 2 * b + a for a, b, c in zip(line, line[1:], line[2:], strict=False)]
            q = [max(-2, min(2, round(value / 2000))) for value in second]
            for a, b, c in zip(q, q[1:], q[2:], strict=False):
                for sign, (u, v, w) in itertools.product((1, -1), ((a, b, c), (c, b, a))):
                    counts[2 + sign * u, 2 + sign * v, 2 + sign * w] += 1
    expected = np.sqrt(counts / counts.sum()).ravel()
    np.testing.assert_allclose(describe(pixels)["srm"][125:250], expected, atol=1e-6)


def test_ties_are_rounded_half_to_even_on_every_machine() -> None:
    values = np.array([-1501, -1500, -1499, -501, -500, -499, 0, 499, 500, 501, 1499, 1500, 1501, 9000], np.int32)
    assert twin._quantise(values, 1000).tolist() == [0, 0, 1, 1, 2, 2, 2, 2, 2, 3, 3, 4, 4, 4]


def test_turning_a_picture_swaps_directions_and_nothing_else() -> None:
    pixels = noise()
    turned = np.ascontiguousarray(pixels.transpose(1, 0, 2))
    a, b = describe(pixels), describe(turned)
    for name in ("srm", "srm_half", "spectrum"):
        np.testing.assert_allclose(a[name], b[name], atol=1e-4, err_msg=name)
    np.testing.assert_allclose(a["residual"].reshape(4, 2, 5)[:, ::-1].ravel(), b["residual"], atol=1e-5)
    np.testing.assert_allclose(a["chroma"].reshape(3, 2, 81)[:, ::-1].ravel(), b["chroma"], atol=1e-6)
    np.testing.assert_allclose(a["dct"].reshape(4, 8, 8).transpose(0, 2, 1).ravel(), b["dct"], atol=1e-3)


@pytest.mark.parametrize("angle", [0, 45, 90, 135, 10, 30, 100, 170])
def test_orientation_bins_are_of_22_5_degrees(angle: int) -> None:
    exact = {0: (1, 0), 45: (1, 1), 90: (0, 1), 135: (-1, 1)}
    x, y = exact.get(angle, (np.cos(np.radians(angle)), np.sin(np.radians(angle))))
    for sign in (1, -1):
        bins = twin._orientation(np.float64([[sign * x]]), np.float64([[sign * y]]))
        assert bins.item() == int(angle // 22.5)


def test_dct_energy_sits_at_the_frequency_of_the_picture() -> None:
    x = np.arange(64)
    wave = np.cos(np.pi * 3 * (2 * (x % 8) + 1) / 16) * np.where(x // 8 % 2, 1, -1)
    y = describe(grey(np.tile(np.rint(128 + 60 * wave), (64, 1))))["dct"][:64].reshape(8, 8)
    assert np.unravel_index(y.argmax(), y.shape) == (0, 3)
    np.testing.assert_allclose(np.exp(y[0, 3]), 60 * np.sqrt(8 / 2) * np.sqrt(8), rtol=0.02)


def test_the_spectrum_peaks_at_the_frequency_of_the_picture() -> None:
    x = np.arange(64)
    spectrum = describe(grey(np.tile(np.rint(128 + 60 * np.cos(2 * np.pi * 20 * x / 64)), (64, 1))))["spectrum"]
    assert len(spectrum) == 16
    assert spectrum[3:].argmax() == 20 // 2 - 3  # below lies what the window makes of the rounding


def test_the_spectrum_equals_the_full_transform() -> None:
    pixels = noise()
    luma = pixels.astype(float) @ (0.299, 0.587, 0.114)
    power = np.log(np.abs(np.fft.fft2((luma - luma.mean()) * np.outer(np.hanning(64), np.hanning(64)))) ** 2 + 1e-3)
    frequency = np.abs(np.fft.fftfreq(64, 1 / 64))
    radius = np.hypot(frequency[:, None], frequency[None])
    expected = [power[(radius >= 2 * k) & (radius < 2 * k + 2) & (radius <= 31)].mean() for k in range(16)]
    np.testing.assert_allclose(describe(pixels)["spectrum"], expected, atol=1e-3)


def test_wavelet_levels_stop_where_bands_get_small_or_odd() -> None:
    for side, levels in ((32, 2), (40, 2), (64, 3), (72, 3), (136, 3), (256, 5), (512, 5)):
        assert TextureExtractor(side).block_sizes["wavelet"] == 9 * (2 + 3 * (levels - 1)), side


def test_wavelet_energy_is_that_of_the_stripes() -> None:
    stripes = grey(np.tile(np.arange(64) % 2 * 20 + 100, (64, 1)))
    wavelet = describe(stripes)["wavelet"].reshape(3, -1)
    energies = np.exp(wavelet[0, [0, 2, 4]]) - 0.05  # first level: along rows, along columns, diagonal
    np.testing.assert_allclose(energies, [20, 0, 0], atol=1e-4)


def test_colour_statistics_are_those_of_the_pixels() -> None:
    pixels = noise()
    colour = describe(pixels)["colour"]
    luma = pixels.astype(float) @ (0.299, 0.587, 0.114) / 255
    np.testing.assert_allclose(colour[:2], [luma.mean(), luma.std()], atol=1e-5)
    np.testing.assert_allclose(colour[2:9], np.percentile(luma, [1, 5, 25, 50, 75, 95, 99]), atol=1e-5)
    np.testing.assert_allclose(colour[36:52], np.histogram(luma, 16, (0, 1))[0] / luma.size, atol=1e-3)
    np.testing.assert_allclose(colour[68:74], 5 * np.cov(pixels.reshape(-1, 3).T / 255)[np.triu_indices(3)], atol=1e-5)


def test_blur_empties_the_residuals_and_the_high_frequencies() -> None:
    sharp = noise()
    blurred = np.asarray(Image.fromarray(sharp).filter(ImageFilter.GaussianBlur(1.5)))
    a, b = describe(sharp), describe(blurred)
    centre = 2 * 25 + 2 * 5 + 2
    assert (b["srm"].reshape(4, 125)[:, centre] > a["srm"].reshape(4, 125)[:, centre] + 0.03).all()
    assert (b["residual"].reshape(8, 5)[:, 0] < a["residual"].reshape(8, 5)[:, 0] - 0.5).all()
    assert b["spectrum"][-1] < a["spectrum"][-1] - 2
    assert b["dct"][63] < a["dct"][63]


def test_chroma_ignores_the_part_common_to_all_channels() -> None:
    luma = np.random.default_rng(0).integers(0, 100, (64, 64, 1))
    tint = np.array([100, 20, 0])
    shared = describe((luma + tint).astype(np.uint8))["chroma"].reshape(6, 81)
    assert (shared[:, 40] == 1).all()  # no difference changes anywhere
    separate = describe(noise())["chroma"].reshape(6, 81)
    assert (separate[:, 40] < 0.9).all()


def test_planes_hold_exact_luma() -> None:
    pixels = noise()
    planes = Planes.of(pixels)
    assert np.array_equal(planes.luma, pixels.astype(int) @ (299, 587, 114))
    assert planes.half[3, 5] == planes.luma[6:8, 10:12].sum()
    assert (Planes.of(grey(np.arange(4096).reshape(64, 64) % 256)).ycc[1:] == 0).all()


@pytest.mark.parametrize("side", [0, 1, 7, 24, 31, 33, 36, 65, 97, 4104])
def test_a_wrong_size_is_named(side: int) -> None:
    with pytest.raises(ConfigError, match=rf"working_size is {side}; it must be a multiple of 8"):
        TextureExtractor(side)
    with pytest.raises(InputError, match=r"must be \(S, S, 3\) uint8"):
        describe(np.zeros((side, side, 3), np.uint8))


def test_other_arrays_are_refused() -> None:
    extractor = TextureExtractor(64)
    for batch in (np.zeros((64, 64, 3), np.uint8), np.zeros((2, 32, 32, 3), np.uint8), np.zeros((2, 64, 64, 3), np.float32)):
        with pytest.raises(InputError, match=r"must be \(n, 64, 64, 3\) uint8"):
            extractor.extract(batch)
    with pytest.raises(InputError, match="uint8"):
        describe(np.zeros((64, 64, 3)))


def floats(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


@pytest.mark.parametrize(
    ("pictures", "features", "message"),
    [
        ((2, 32, 40, 3), (2, 2835), r"pictures has shape \(2, 32, 40, 3\); it must be \(n, S, S, 3\)"),
        ((2, 32, 32, 4), (2, 2835), r"pictures has shape \(2, 32, 32, 4\); it must be \(n, S, S, 3\)"),
        ((1, 33, 33, 3), (1, 2835), "pictures has side 33; it must be a multiple of 8, 32 to 4096"),
        ((2, 32, 32, 3), (1, 2835), r"features has shape \(1, 2835\); it must have \(2, 2808\)"),
    ],
)
def test_the_kernel_refuses_shapes_that_do_not_fit(pictures: tuple[int, ...], features: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        _native.texture(np.zeros(pictures, np.uint8), floats(*features))


@pytest.mark.parametrize(
    "pictures", [floats(1, 32, 32, 3), np.zeros((1, 64, 64, 3), np.uint8)[:, ::2, ::2], np.zeros((32, 32, 3), np.uint8)]
)
def test_the_kernel_refuses_other_dtypes(pictures: np.ndarray) -> None:
    with pytest.raises(TypeError, match="incompatible function arguments"):
        _native.texture(pictures, floats(1, 2808))
