"""A captioner for a closed world: a small network predicts attributes, and a sentence of the manifest puts them into words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from ..bundle import Bundle
from ..engines.pool import EnginePool
from ..errors import BundleError
from ..types import Floats, Pixels


def matches(source: str | Bundle) -> bool:
    """Whether `source` is a bundle of family `tagger`."""
    return isinstance(source, Bundle) and source.family == "tagger"


def open(bundle: Bundle, pool: EnginePool) -> Tagger:
    """The captioner of a bundle."""
    return Tagger(bundle, pool)


class Tagger:
    """Predicts attributes of a picture and writes them as the sentence that the generators were trained on."""

    def __init__(self, bundle: Bundle, pool: EnginePool) -> None:
        self.bundle = bundle
        self.name = bundle.name
        self.sha256 = bundle.sha256
        self._pool = pool
        self._attributes: dict[str, list[str]] = bundle.get("attributes", dict)
        self._sentence: str = bundle.get("sentence", str)
        self._phrases: dict[str, dict[str, str]] = bundle.get("phrases", dict)

    def caption(self, pictures: Sequence[Pixels]) -> list[str]:
        """See `Captioner.caption`; the whole picture is resized to the network's square, without keeping its aspect ratio."""
        return [self._write(labels) for labels in self.tag(pictures)]

    def tag(self, pictures: Sequence[Pixels]) -> list[dict[str, str]]:
        """The most probable label of each attribute, for each picture."""
        component = self.bundle.components["tagger"]
        side = component.inputs["pixels"].shape[-1]
        assert isinstance(side, int)
        batch = np.stack([_square(picture, side) for picture in pictures])
        outputs = self._pool.get(component).run({"pixels": batch})
        tags: list[dict[str, str]] = [{} for _ in pictures]
        for name, labels in self._attributes.items():
            logits = outputs[f"logits_{name}"]
            if not np.isfinite(logits).all():
                raise BundleError(f"{self.name}: attribute {name!r} has logits that are not finite; export the captioner again")
            for tag, row in zip(tags, logits, strict=True):
                tag[name] = labels[int(row.argmax())]
        return tags

    def sentences(self, count: int) -> list[str]:
        """`count` different captions that it could write, at most; always the same ones."""
        rng = np.random.default_rng(0)
        labels = ({name: values[rng.integers(len(values))] for name, values in self._attributes.items()} for _ in range(4 * count))
        return list(dict.fromkeys(map(self._write, labels)))[:count]

    def _write(self, labels: dict[str, str]) -> str:
        words = dict(labels)
        for name, phrases in self._phrases.items():
            words[name] = _fill(phrases.get(labels[name], phrases["*"]), labels)
        return _fill(self._sentence, words)


def _square(picture: Pixels, side: int) -> Floats:
    """(H, W, 3) uint8 → (3, side, side) float32 in [0, 1]."""
    image = (
        Image.fromarray(picture)
        if picture.shape[:2] == (side, side)
        else Image.fromarray(picture).resize((side, side), Image.Resampling.BICUBIC)
    )
    return np.asarray(image, np.float32).transpose(2, 0, 1) / np.float32(255)


def _fill(template: str, words: dict[str, str]) -> str:
    """Replace each {name} by its word; unlike `str.format` it gives a manifest no way into Python's attributes."""
    for name, word in words.items():
        template = template.replace("{" + name + "}", word)
    return template
