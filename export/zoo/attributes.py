"""Attributes and captions of the zoo's pictures: drawn faces with a closed set of attributes, described exactly."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from itertools import islice

import numpy as np

ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "style": ("ink drawing", "pixel art", "flat vector"),
    "mouth": ("smiling", "sad", "neutral", "surprised"),
    "skin": ("pale", "tan", "brown", "dark"),
    "hair": ("short", "long", "curly", "bald"),
    "hair_colour": ("black", "brown", "blond", "red", "gray"),
    "glasses": ("none", "glasses", "sunglasses"),
    "beard": ("none", "beard", "moustache"),
    "clothes": ("red", "blue", "green", "yellow", "purple", "black", "white"),
    "background": ("white", "sky", "pink", "cream", "gray", "mint", "lavender", "navy"),
}

# Labels that a style lacks, because its artist never drew them (every head of Open Peeps has black hair).
ABSENT: dict[str, dict[str, tuple[str, ...]]] = {
    "ink drawing": {"hair_colour": ("brown", "blond", "red", "gray")},
    "pixel art": {"hair": ("curly",), "mouth": ("neutral", "surprised")},
}

# Probabilities of labels that are not uniform: most people wear neither glasses nor a beard.
WEIGHTS: dict[str, tuple[float, ...]] = {
    "hair": (0.32, 0.32, 0.22, 0.14),
    "glasses": (0.5, 0.25, 0.25),
    "beard": (0.6, 0.2, 0.2),
}

SENTENCE = (
    "{style} portrait of a {mouth} person with {skin} skin, {hair}{glasses}{beard}, wearing {clothes} clothes, {background} background"
)
PHRASES: dict[str, dict[str, str]] = {
    "hair": {"bald": "a bald head", "*": "{hair} {hair_colour} hair"},
    "glasses": {"none": "", "*": ", {glasses}"},
    "beard": {"none": "", "*": ", a {beard}"},
}


def caption(face: Mapping[str, str]) -> str:
    """The sentence that describes `face` ({attribute: label}). Every model of the zoo is trained on this grammar."""
    phrase_of = dict(face)
    for name, phrases in PHRASES.items():
        phrase_of[name] = phrases.get(face[name], phrases["*"]).format(**face)
    return SENTENCE.format(**phrase_of)


def held_out(text: str) -> bool:
    """Whether a caption is held out: one in eight is left out of every training, and evaluation uses only those."""
    return zlib.crc32(text.encode()) % 8 == 0


def draw(rng: np.random.Generator) -> Iterator[dict[str, str]]:
    """Endless random faces; attributes are independent, except for the labels that a style lacks."""
    while True:
        face: dict[str, str] = {}
        for name, labels in ATTRIBUTES.items():
            absent = ABSENT.get(face.get("style", ""), {}).get(name, ())
            weights = np.array(
                [0.0 if label in absent else w for label, w in zip(labels, WEIGHTS.get(name, (1.0,) * len(labels)), strict=True)]
            )
            face[name] = labels[rng.choice(len(labels), p=weights / weights.sum())]
        yield face


def training_captions(count: int) -> list[str]:
    """Distinct captions that are not held out; always the same ones."""
    texts = (caption(face) for face in draw(np.random.default_rng(3)))
    return list(islice(dict.fromkeys(text for text in islice(texts, 4 * count) if not held_out(text)), count))
