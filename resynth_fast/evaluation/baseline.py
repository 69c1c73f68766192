"""A classifier that sees only size and codec of a file, never the picture. On a fair dataset its accuracy is chance."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .. import images
from ..types import Bytes, Doubles, Integers
from . import metrics

FILE = 7
"""Number of facts about the file; the remaining facts are about its normalised pixels."""
NEIGHBOURS = 9
FORMATS = ("PNG", "JPEG", "WEBP")


def facts(path: Path, normalised: Bytes) -> list[float]:
    """Facts about a readable picture: width, height, format, logarithm of bytes per pixel and mean of the JPEG quantisation tables;
    then the logarithm of bytes per pixel of the normalised picture (S, S, 3) as PNG."""
    with Image.open(path, formats=images.FORMATS) as image:
        tables = getattr(image, "quantization", None) or {}
        strength = float(np.mean([np.mean(table) for table in tables.values()])) if tables else 0.0
        formats = [float(image.format == name) for name in FORMATS]
        of_file = [image.width, image.height, *formats, float(np.log(path.stat().st_size / (image.width * image.height))), strength]
    buffer = io.BytesIO()
    Image.fromarray(normalised).save(buffer, "PNG", compress_level=1)
    return [*of_file, float(np.log(len(buffer.getvalue()) / normalised[..., 0].size))]


def evaluate(values: Doubles, generator: Integers, group: Integers) -> dict[str, Any]:
    """Balanced accuracy of nearest neighbours by `facts` (n, FILE + 1), cross-validated over groups: by the facts about the
    files, and after pixel normalisation, when the only fact left is how well a picture compresses."""
    return {
        "balanced": _accuracy(values[:, :FILE], generator, group),
        "normalised": _accuracy(values[:, FILE:], generator, group),
        "chance": 1 / len(np.unique(generator)),
    }


def _accuracy(values: Doubles, generator: Integers, group: Integers, folds: int = 5) -> float | None:
    fold = group % folds
    labels, label = np.unique(generator, return_inverse=True)
    rng = np.random.default_rng(0)
    predicted = np.full(len(label), -1)
    for f in np.unique(fold):
        test, train = np.flatnonzero(fold == f), np.flatnonzero(fold != f)
        if not len(train):
            return None
        scaled = (values - values[train].mean(0)) / (values[train].std(0) + 1e-6)
        for rows in np.array_split(test, -(-len(test) // 256)):
            distance = ((scaled[rows, None] - scaled[train]) ** 2).sum(2)
            distance += rng.random(distance.shape) * 1e-6  # break ties at random, so that equal facts do not favour the first pictures
            near = label[train][np.argpartition(distance, min(NEIGHBOURS, len(train)) - 1, axis=1)[:, :NEIGHBOURS]]
            votes = np.stack([(near == c).sum(1) for c in range(len(labels))], axis=1) + rng.random((len(rows), len(labels))) * 0.5
            predicted[rows] = votes.argmax(1)
    return metrics.balanced_accuracy(predicted == label, label)
