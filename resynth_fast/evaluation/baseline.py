"""What size and codec alone give away: a classifier that never looks at the picture, to be at chance where a dataset is fair."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .. import images
from ..pixels import PixelRecipe
from . import metrics
from .dataset import Dataset


def evaluate(dataset: Dataset, pixels: PixelRecipe) -> dict[str, Any]:
    """Balanced accuracy of the nearest class by size, format, bytes a pixel and quantisation tables, by folds of prompts:
    as the files are, and after pixel normalisation, when all that is left is how well a picture compresses."""
    return {
        "balanced": _accuracy(dataset, np.array([_facts(file) for file in dataset.files])),
        "normalised": _accuracy(dataset, np.array([_normalised_facts(file, pixels) for file in dataset.files])),
    }


def _accuracy(dataset: Dataset, facts: metrics.Doubles, folds: int = 5) -> float | None:
    fold = dataset.group % folds
    predicted = np.full(len(dataset), -1)
    for f in np.unique(fold):
        train, test = fold != f, fold == f
        if not train.any():
            return None
        centre, scale = facts[train].mean(0), facts[train].std(0) + 1e-9
        known = np.unique(dataset.generator[train])
        means = np.stack([((facts - centre) / scale)[train & (dataset.generator == g)].mean(0) for g in known])
        distance = ((((facts[test] - centre) / scale)[:, None] - means) ** 2).sum(2)
        ties = np.random.default_rng(0).random(distance.shape) * 1e-9  # equal facts must not always mean the first class
        predicted[test] = known[(distance + ties).argmin(1)]
    return metrics.balanced_accuracy(predicted == dataset.generator, dataset.generator)


def _facts(path: Path) -> list[float]:
    """Width, height, format, logarithm of bytes a pixel, and the strength of JPEG's quantisation."""
    with Image.open(path) as image:
        tables = getattr(image, "quantization", None) or {}
        strength = float(np.mean([np.mean(table) for table in tables.values()])) if tables else 0.0
        formats = [float(image.format == name) for name in ("PNG", "JPEG", "WEBP")]
        return [image.width, image.height, *formats, float(np.log(path.stat().st_size / (image.width * image.height))), strength]


def _normalised_facts(path: Path, pixels: PixelRecipe) -> list[float]:
    """The same of the normalised picture, saved as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels.normalise(images.read(path).pixels)).save(buffer, "PNG", compress_level=1)
    side = pixels.working_size
    return [side, side, 1.0, 0.0, 0.0, float(np.log(len(buffer.getvalue()) / side**2)), 0.0]
