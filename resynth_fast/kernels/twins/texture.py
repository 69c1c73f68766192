"""Float64 NumPy twin of the texture kernel: the arbiter of its tests, and the fallback where none is built.

All counting is done on integers (luma in thousandths), so that a tie between two bins falls the same way on every
machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ...types import Bytes, Doubles, Floats

Ints = npt.NDArray[np.int32]
Number = TypeVar("Number", Ints, Doubles)

LUMA = 1000  # luma is kept as integers of 1 / LUMA grey level
_LUMA_WEIGHTS = (299, 587, 114)
_CB_WEIGHTS, _CR_WEIGHTS = (-1687, -3313, 5000), (5000, -4187, -813)  # of 1 / 10000 grey level
_YCC_UNITS = np.array([LUMA, 10_000, 10_000])[:, None, None]


@dataclass(frozen=True, slots=True, eq=False)
class Planes:
    """A picture of side S taken apart once for all blocks.

    rgb: (3, S, S) int32, 0 … 255. luma: (S, S) int32 of 1/LUMA grey level. ycc: (3, S, S) float64, in grey levels,
    chroma around 0. half: (S/2, S/2) int32 of 1/(4 LUMA) grey level, sums over 2 x 2 px.
    """

    rgb: Ints
    luma: Ints
    ycc: Doubles
    half: Ints

    @classmethod
    def of(cls, pixels: Bytes) -> Planes:
        rgb = np.ascontiguousarray(pixels.transpose(2, 0, 1), np.int32)
        luma, cb, cr = (_mix(rgb, weights) for weights in (_LUMA_WEIGHTS, _CB_WEIGHTS, _CR_WEIGHTS))
        ycc = np.stack([luma, cb, cr]) / _YCC_UNITS
        return cls(rgb=rgb, luma=luma, ycc=ycc, half=_halve(luma))


def describe(pixels: Bytes) -> dict[str, Floats]:
    """(S, S, 3) uint8 sRGB, S a multiple of 8 of at least 32 -> block name -> (k,) float32, in the order of BLOCKS."""
    planes = Planes.of(pixels)
    return {name: block(planes).astype(np.float32) for name, block in BLOCKS.items()}


# --- noise residuals ------------------------------------------------------------------------------------------------


def srm(planes: Planes) -> Doubles:
    """Co-occurrences of noise residuals: 4 x 125. J. Fridrich, J. Kodovsky: Rich models for steganalysis, IEEE TIFS 2012.

    Residuals of order 1, 2, 3 and the 3 x 3 square filter are quantised by 1, 2, 4, 4 grey levels to -2 … 2 and counted
    in triples along their own direction, forwards and backwards, with either sign; square roots of the frequencies.
    """
    return _co_occurrences(planes.luma, LUMA)


def srm_half(planes: Planes) -> Doubles:
    """`srm` at half scale."""
    return _co_occurrences(planes.half, 4 * LUMA)


def residual(planes: Planes) -> Doubles:
    """Moments of the residuals of `srm`: 8 x (log deviation, log mean magnitude, log(1 + kurtosis), share < 1, share > 8)."""
    return _residual_moments(planes.luma, LUMA)


def residual_half(planes: Planes) -> Doubles:
    """`residual` at half scale."""
    return _residual_moments(planes.half, 4 * LUMA)


def _residuals(g: Ints) -> list[tuple[Ints, Ints, int]]:
    """(along rows, along columns, quantiser in grey levels) for each filter; both in the layout of the picture."""
    square = 2 * (g[:-2, 1:-1] + g[2:, 1:-1] + g[1:-1, :-2] + g[1:-1, 2:]) - 4 * g[1:-1, 1:-1]
    square -= g[:-2, :-2] + g[:-2, 2:] + g[2:, :-2] + g[2:, 2:]
    rows1, columns1 = g[:, 1:] - g[:, :-1], g[1:] - g[:-1]
    rows2, columns2 = rows1[:, 1:] - rows1[:, :-1], columns1[1:] - columns1[:-1]
    rows3, columns3 = rows2[:, 1:] - rows2[:, :-1], columns2[1:] - columns2[:-1]
    return [(rows1, columns1, 1), (rows2, columns2, 2), (rows3, columns3, 4), (square, square, 4)]


def _co_occurrences(g: Ints, unit: int) -> Doubles:
    counts = np.empty((4, 125))
    for k, (along_rows, along_columns, step) in enumerate(_residuals(g)):
        a = _quantise(along_rows, step * unit)
        b = a if along_columns is along_rows else _quantise(along_columns, step * unit)
        counts[k] = np.bincount(((a[:, :-2] * 5 + a[:, 1:-1]) * 5 + a[:, 2:]).ravel(), minlength=125)
        counts[k] += np.bincount(((b[:-2] * 5 + b[1:-1]) * 5 + b[2:]).ravel(), minlength=125)
    backwards = counts.reshape(4, 5, 5, 5).transpose(0, 3, 2, 1).reshape(4, 125)
    counts = counts + backwards
    counts += counts[:, ::-1]  # the other sign
    return _hellinger(counts).ravel()


def _quantise(values: Ints, step: int) -> Bytes:
    """round(values / step), half to even, clipped to -2 … 2, plus 2. `step` is even, so halves are exact."""
    half = step // 2
    levels = (values > half).view(np.uint8) + (values >= 3 * half).view(np.uint8)
    levels -= (values < -half).view(np.uint8)
    levels -= (values <= -3 * half).view(np.uint8)
    levels += 2
    return levels


def _residual_moments(g: Ints, unit: int) -> Doubles:
    moments: list[list[float]] = []
    for along_rows, along_columns, _ in _residuals(g):
        moments.append(_moments(along_rows, unit))
        moments.append(moments[-1] if along_columns is along_rows else _moments(along_columns, unit))
    return np.asarray(moments).ravel()


def _moments(values: Ints, unit: int) -> list[float]:
    r = values / unit
    squares, magnitude = r * r, np.abs(r)
    variance = max(float(squares.mean()) - float(r.mean()) ** 2, 0.0)
    kurtosis = float((squares * squares).mean()) / (variance + 1e-3) ** 2
    few, many = np.count_nonzero(magnitude < 1) / r.size, np.count_nonzero(magnitude > 8) / r.size
    return [np.log(np.sqrt(variance) + 0.1), np.log(float(magnitude.mean()) + 0.1), np.log1p(kurtosis), few, many]


# --- local patterns and transforms ----------------------------------------------------------------------------------


def lbp(planes: Planes) -> Doubles:
    """Local binary patterns, 3 scales x 256. T. Ojala et al.: Multiresolution gray-scale …, IEEE TPAMI 2002.

    Bit k is set where neighbour k is at least one grey level above the centre; square roots of the frequencies.
    """
    counts = np.empty((3, 256))
    for scale, g in enumerate((planes.luma, planes.half, _halve(planes.half))):
        height, width = g.shape
        least = g[1:-1, 1:-1] + LUMA * 4**scale
        codes = np.zeros(least.shape, np.uint8)
        for bit, (y, x) in enumerate(((0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0))):
            codes |= (g[y : height - 2 + y, x : width - 2 + x] >= least).view(np.uint8) << np.uint8(bit)
        counts[scale] = np.bincount(codes.ravel(), minlength=256)
    return _hellinger(counts).ravel()


def dct(planes: Planes) -> Doubles:
    """Energies of the 64 coefficients of the 8 x 8 block DCT: luma (deviation, median), Cb, Cr (deviation); logs, 4 x 64.

    J. Frank et al.: Leveraging frequency analysis for deep fake image recognition, ICML 2020.
    """
    basis = _dct_basis()
    count = planes.luma.shape[0] // 8
    # a product a row of blocks, not one large one: BLAS would start threads for that, which wait for busy cores
    columns = basis @ planes.ycc.reshape(3 * count, 8, 8 * count)
    both = (columns.reshape(3 * count, 8 * count, 8) @ basis.T).reshape(3, count, 8, count, 8)
    # coefficients first, so that each one's statistics run over contiguous memory
    coefficients = both.transpose(0, 2, 4, 1, 3).reshape(3, 64, count * count)
    y, cb, cr = np.log(coefficients.std(2) + 1e-2)
    middle = np.sort(np.abs(coefficients[0]), 1)
    n = middle.shape[1]
    median = (middle[:, (n - 1) // 2] + middle[:, n // 2]) / 2
    return np.concatenate([y, np.log(median + 0.05), cb, cr])


@lru_cache
def _dct_basis() -> Doubles:
    """(8, 8) orthonormal DCT-II, a row a frequency."""
    frequency, position = np.arange(8)[:, None], np.arange(8)[None]
    basis: Doubles = np.cos(np.pi * frequency * (2 * position + 1) / 16) / 2
    basis[0] /= np.sqrt(2)
    return basis


def wavelet(planes: Planes) -> Doubles:
    """Haar detail bands of Y, Cb, Cr: log energy, log of mean magnitude to energy, correlation of magnitudes with the scale above.

    H. Farid, S. Lyu: Higher-order wavelet statistics and their application to digital forensics, CVPRW 2003. Up to five
    levels, as long as the bands are at least 8 px wide and the picture divides; 9 x (2 + 3 (levels - 1)) numbers.
    """
    level = planes.ycc
    finer: Doubles | None = None
    blocks: list[Doubles] = []
    while level.shape[1] % 2 == 0 and level.shape[1] >= 16 and len(blocks) < 5:
        p, q, r, s = level[:, ::2, ::2], level[:, ::2, 1::2], level[:, 1::2, ::2], level[:, 1::2, 1::2]
        bands = np.stack([p - q + r - s, p + q - r - s, p - q - r + s], 1) / 2
        level = (p + q + r + s) / 2
        magnitude = np.abs(bands)
        deviation = np.sqrt((bands * bands).mean((2, 3)))
        numbers = [np.log(deviation + 0.05), np.log((magnitude.mean((2, 3)) + 0.02) / (deviation + 0.02))]
        if finer is not None:
            numbers.append(_correlation(_halve(finer), magnitude))
        finer = magnitude
        blocks.append(np.stack(numbers, 2).reshape(3, -1))
    return np.concatenate(blocks, 1).ravel()


def _correlation(a: Doubles, b: Doubles) -> Doubles:
    """(…, y, x) twice -> (…): their correlation, shrunk towards 0 where either hardly varies."""
    a = a - a.mean((-2, -1), keepdims=True)
    b = b - b.mean((-2, -1), keepdims=True)
    deviations = np.sqrt((a * a).mean((-2, -1)) * (b * b).mean((-2, -1)))
    correlation: Doubles = (a * b).mean((-2, -1)) / (deviations + 1e-3)
    return correlation


def gradient(planes: Planes) -> Doubles:
    """Gradients at 4 scales: orientations (8), log mean and deviation, 7 log quantiles, 5 log quantiles of the local contrast.

    Orientations after N. Dalal, B. Triggs: Histograms of oriented gradients, CVPR 2005.
    """
    numbers: list[npt.NDArray[np.floating[Any]]] = []
    for scale, g in enumerate(_pyramid(planes, 4)):
        levels = g.astype(np.float64)
        gx, gy = levels[1:-1, 2:] - levels[1:-1, :-2], levels[2:, 1:-1] - levels[:-2, 1:-1]
        magnitude = np.sqrt(gx * gx + gy * gy)
        weights = np.bincount(_orientation(gx, gy).ravel(), weights=magnitude.ravel(), minlength=8)
        unit = 255.0 * LUMA * 4**scale
        numbers.append(weights / (weights.sum() + 1e-6 * unit))
        numbers.append(np.log(np.array([magnitude.mean(), magnitude.std()]) / unit + 1e-3))
        numbers.append(np.log(_quantiles(magnitude, (10, 25, 50, 75, 90, 97, 99.5)) / unit + 1e-3))
        numbers.append(np.log(_quantiles(_local_deviation(levels), (5, 25, 50, 75, 95)) / unit + 1e-3))
    return np.concatenate(numbers)


def _orientation(gx: Doubles, gy: Doubles) -> Bytes:
    """Direction modulo 180 degrees in eight bins of 22.5, by comparisons instead of arc tangents: quicker, and exact at 0, 45, 90, 135."""
    x, y = np.where((gy < 0) | ((gy == 0) & (gx < 0)), -gx, gx), np.abs(gy)
    bins = np.zeros(gx.shape, np.uint8)
    steep, diagonal, flat = (np.sqrt(2) - 1) * y, y, (np.sqrt(2) + 1) * y
    for least in (flat, diagonal, steep):
        bins += (x <= least).view(np.uint8)
        bins += (x <= -least).view(np.uint8)
    bins += (x <= 0).view(np.uint8)
    return bins


def _local_deviation(g: Doubles) -> Doubles:
    """Standard deviation in tiles of 8 x 8 px, or of the whole where it is smaller."""
    tile = min(8, len(g))
    count = len(g) // tile
    whole = g[: count * tile, : count * tile]
    tiles = whole.reshape(count, tile, count, tile).transpose(0, 2, 1, 3).reshape(count * count, tile * tile)
    deviations: Doubles = tiles.std(1)
    return deviations


# --- colour and spectrum --------------------------------------------------------------------------------------------


def colour(planes: Planes) -> Doubles:
    """Colour: mean, deviation, 7 quantiles of luma, saturation, Cb, Cr; histograms of luma and saturation; covariance; extremes."""
    rgb = planes.rgb
    highest, lowest = rgb.max(0), rgb.min(0)
    saturation = (highest - lowest) / (highest + 0.255)  # in 0 … 1: (h - l) / (h + 0.001)
    channels = [planes.ycc[0] / 255, saturation, planes.ycc[1] / 255, planes.ycc[2] / 255]
    numbers = [np.array([c.mean(), c.std(), *_quantiles(c, (1, 5, 25, 50, 75, 95, 99))]) for c in channels]
    pixels = saturation.size
    luma_bins = np.minimum(planes.luma * 16 // (255 * LUMA), 15)
    saturation_bins = np.minimum((saturation * 16).astype(np.int32), 15)
    numbers += [np.bincount(bins.ravel(), minlength=16) / pixels for bins in (luma_bins, saturation_bins)]
    values = rgb.reshape(3, -1).astype(np.float64)  # whole numbers: the sums below are exact
    sums = values.sum(1)
    covariance = (np.einsum("ip,jp->ij", values, values) - np.outer(sums, sums) / pixels) / (pixels - 1) / 255**2
    numbers.append(5 * covariance[np.triu_indices(3)])
    extremes = planes.luma <= 5_100, planes.luma > 249_900, saturation < 0.05
    numbers.append(np.array([np.count_nonzero(share) / pixels for share in extremes]))
    return np.concatenate(numbers)


def chroma(planes: Planes) -> Doubles:
    """Co-occurrences of neighbouring differences of R - G, G - B, R - B, clipped to -4 … 4: 3 x 2 directions x 81.

    After H. Li et al.: Identification of deep network generated images using disparities in color components, 2020.
    """
    red, green, blue = planes.rgb.astype(np.int16)
    counts = []
    for difference in (red - green, green - blue, red - blue):
        along_rows = (np.clip(difference[:, 1:] - difference[:, :-1], -4, 4) + 4).astype(np.uint8)
        along_columns = (np.clip(difference[1:] - difference[:-1], -4, 4) + 4).astype(np.uint8)
        counts.append(np.bincount((along_rows[:, :-1] * 9 + along_rows[:, 1:]).ravel(), minlength=81))
        counts.append(np.bincount((along_columns[:-1] * 9 + along_columns[1:]).ravel(), minlength=81))
    return _hellinger(np.asarray(counts, np.float64)).ravel()


def spectrum(planes: Planes) -> Doubles:
    """Log power of luma by radial frequency, S/4 rings two frequencies wide, under a Hann window.

    R. Durall et al.: Watch your up-convolution, CVPR 2020.
    """
    window, rings, weights, totals = _rings(planes.luma.shape[0])
    luma = planes.ycc[0]
    transform = np.fft.rfft2((luma - luma.mean()) * window)
    power = np.log(transform.real**2 + transform.imag**2 + 1e-3)
    return np.bincount(rings, weights=power.ravel() * weights)[: len(totals)] / totals


@lru_cache
def _rings(side: int) -> tuple[Doubles, npt.NDArray[np.intp], Doubles, Doubles]:
    """Window (S, S); ring and weight of every bin of rfft2, flat; total weight of each ring.

    Of two conjugate frequencies rfft2 keeps one: it counts twice. Beyond the largest whole circle nothing counts.
    """
    window = np.outer(np.hanning(side), np.hanning(side))
    vertical = np.minimum(np.arange(side), side - np.arange(side))[:, None]
    horizontal = np.arange(side // 2 + 1)[None]
    radius = np.sqrt(vertical**2 + horizontal**2)
    alone = (horizontal == 0) | (horizontal == side // 2)
    weights: Doubles = (np.where(alone, 1.0, 2.0) * (radius <= side // 2 - 1)).ravel()
    rings: npt.NDArray[np.intp] = (radius / 2).astype(np.intp).ravel()
    totals: Doubles = np.bincount(rings, weights=weights).astype(np.float64)
    return window, rings, weights, totals[: side // 4]


# --- shared ---------------------------------------------------------------------------------------------------------


def _mix(rgb: Ints, weights: tuple[int, int, int]) -> Ints:
    red, green, blue = weights
    mixed: Ints = rgb[0] * red + rgb[1] * green + rgb[2] * blue
    return mixed


def _halve(g: Number) -> Number:
    """(…, y, x) -> (…, y/2, x/2): *sums* over 2 x 2, so that integers stay integers."""
    rows = g[..., ::2, :] + g[..., 1::2, :]
    return rows[..., ::2] + rows[..., 1::2]


def _pyramid(planes: Planes, scales: int) -> list[Ints]:
    """Luma at `scales` halvings, scale s in units of 1/(LUMA 4^s) grey level."""
    levels = [planes.luma, planes.half]
    while len(levels) < scales:
        levels.append(_halve(levels[-1]))
    return levels


def _quantiles(values: Doubles, percent: tuple[float, ...]) -> Doubles:
    """Percentiles with linear interpolation. One sort is quicker than a selection for each."""
    ordered = np.sort(values, axis=None)
    position = np.asarray(percent) / 100 * (ordered.size - 1)
    below = position.astype(np.intp)
    low, high = ordered[below], ordered[np.minimum(below + 1, ordered.size - 1)]
    return low + (high - low) * (position - below)


def _hellinger(counts: Doubles) -> Doubles:
    """(…, k) counts -> square roots of the frequencies, each row of unit length."""
    roots: Doubles = np.sqrt(counts / counts.sum(-1, keepdims=True))
    return roots


BLOCKS: Mapping[str, Callable[[Planes], npt.NDArray[np.floating[Any]]]] = MappingProxyType(
    {
        "srm": srm,
        "srm_half": srm_half,
        "residual": residual,
        "residual_half": residual_half,
        "lbp": lbp,
        "dct": dct,
        "wavelet": wavelet,
        "gradient": gradient,
        "colour": colour,
        "chroma": chroma,
        "spectrum": spectrum,
    }
)


@lru_cache
def _block_sizes(side: int) -> Mapping[str, int]:
    blank = describe(np.zeros((side, side, 3), np.uint8))
    return MappingProxyType({name: values.size for name, values in blank.items()})
