"""Perturbations of pictures, as on their way through the web: recompressed, resized, cropped, blurred.

A perturbation is named `family-parameter`. There are four uses: mild perturbations that an answer must survive,
degradations that an extractor's nuisance constants and a domain are fitted on, and the conditions of the robustness protocol.
"""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

from ..errors import ConfigError
from ..types import Pixels

MILD = ("jpeg-85", "resize-1.5", "crop-0.96")
"""An answer that changes under most of these is inconclusive."""

NUISANCE = {"jpeg": ("jpeg-70", "jpeg-50"), "resize": ("resize-0.5",), "crop": ("crop-0.8",), "blur": ("blur-1",)}
"""Degradations that the nuisance constants are fitted on, by family."""

DOMAIN = ("jpeg-90", "jpeg-70", "jpeg-50", "webp-80", "resize-0.75", "resize-0.5", "crop-0.8", "blur-1", "noise-4", "resize-0.75+jpeg-70")
"""Degradations by which a picture does not leave what a captioner and an extractor know. The last stands for all changes of size that were
stored as JPEG: with it few of them lie outside, without it every third to every second."""

ROBUSTNESS = (
    "jpeg-90",
    "jpeg-70",
    "jpeg-50",
    "jpeg-30",
    "webp-80",
    "webp-50",
    "resize-0.75",
    "resize-0.5",
    "crop-0.9",
    "crop-0.8",
    "crop-0.6",
    "blur-1",
    "blur-2",
    "rotate-3",
    "noise-8",
    "social-1080",
    "screenshot-1.25",
)
"""Conditions of the robustness protocol: only the probe is degraded."""


def perturbation(name: str) -> Callable[[Pixels], Pixels]:
    """The perturbation called `name`: (H, W, 3) uint8 → (h, w, 3) uint8; several in turn are joined by +. ConfigError for another name."""
    first, plus, rest = name.partition("+")
    if plus:
        before, after = perturbation(first), perturbation(rest)
        return lambda pixels: after(before(pixels))
    family, _, parameter = name.partition("-")
    try:
        change, value = _FAMILIES[family], float(parameter)
    except (KeyError, ValueError):
        raise ConfigError(f"perturbation is {name!r}; it must be {', '.join(_FAMILIES)}, a hyphen and a number, as in jpeg-50") from None

    def changed(pixels: Pixels) -> Pixels:
        return np.array(change(Image.fromarray(pixels), value).convert("RGB"))

    return changed


def _jpeg(image: Image.Image, quality: float) -> Image.Image:
    return _coded(image, "JPEG", quality)


def _webp(image: Image.Image, quality: float) -> Image.Image:
    return _coded(image, "WEBP", quality)


def _coded(image: Image.Image, form: str, quality: float) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, form, quality=round(quality))
    with Image.open(buffer, formats=(form,)) as coded:
        return coded.convert("RGB")


def _resize(image: Image.Image, factor: float) -> Image.Image:
    size = max(1, round(image.width * factor)), max(1, round(image.height * factor))
    return image.resize(size, Image.Resampling.LANCZOS if factor > 1 else Image.Resampling.BICUBIC)


def _crop(image: Image.Image, kept: float) -> Image.Image:
    left, top = (max(1, round(side * (1 - kept) / 2)) for side in image.size)
    return image.crop((left, top, image.width - left, image.height - top))


def _blur(image: Image.Image, sigma: float) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(sigma))


def _rotate(image: Image.Image, degrees: float) -> Image.Image:
    """Rotate, then crop to the part that the rotated picture covers."""
    turned = image.rotate(degrees, Image.Resampling.BICUBIC)
    return _crop(turned, 1 - 2 * np.sin(np.radians(abs(degrees))))


def _noise(image: Image.Image, sigma: float) -> Image.Image:
    """Add white noise of `sigma` grey levels, the same for the same picture."""
    pixels = np.asarray(image)
    rng = np.random.default_rng(int(pixels.sum()))
    return Image.fromarray(np.rint(pixels + rng.normal(0, sigma, pixels.shape)).clip(0, 255).astype(np.uint8))


def _social(image: Image.Image, longest: float) -> Image.Image:
    """Like a social platform: no side longer than `longest` pixels, JPEG at quality 85."""
    factor = min(1.0, longest / max(image.size))
    return _jpeg(_resize(image, factor) if factor < 1 else image, 85)


def _screenshot(image: Image.Image, scale: float) -> Image.Image:
    """A lossless screenshot of the picture, shown enlarged by `scale`, and brought back to its size."""
    shown = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
    return shown.resize(image.size, Image.Resampling.BICUBIC)


_FAMILIES: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "jpeg": _jpeg,
    "webp": _webp,
    "resize": _resize,
    "crop": _crop,
    "blur": _blur,
    "rotate": _rotate,
    "noise": _noise,
    "social": _social,
    "screenshot": _screenshot,
}
