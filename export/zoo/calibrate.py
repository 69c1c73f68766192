"""Fit the constants of the zoo's texture extractor, what it and the captioner know, and calibrate the verdict, on training captions.

Held-out captions, probes of an evaluation and the withheld generator are not used here.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from resynth_fast import zoo
from resynth_fast.attributor import Attributor
from resynth_fast.candidates import ScheduledCandidate, find
from resynth_fast.captioners.tagger import Tagger
from resynth_fast.engines.pool import EnginePool
from resynth_fast.evaluation import generators
from resynth_fast.extractors.pixels import PixelRecipe
from resynth_fast.extractors.space import pack, space
from resynth_fast.extractors.texture import TextureExtractor
from resynth_fast.images import perturbations
from resynth_fast.options import Options
from resynth_fast.scoring.calibration import Calibration, CalibrationPoint
from resynth_fast.scoring.whitening import fit_constants
from resynth_fast.types import Doubles, Pixels

from .. import bundles
from . import domain
from .attributes import training_captions

PIXELS: dict[str, Any] = {"working_size": 64, "border": 0.0, "jpeg_quality": None}
STEPS, PROBE_STEPS = (4, 8), 20
FIRST_SEED = 1 << 36


def calibrate(to: Path, *, fit_on: int = 45, probes: int = 160) -> dict[str, Any]:
    """Write the `texture` bundle into `to`, and the domain of the captioner there; returns accuracy and calibration on the probes."""
    pool = EnginePool(threads=2)
    candidates = [c for c in find(["zoo:"], pool) if isinstance(c, ScheduledCandidate)]
    recipe_pixels, extractor = PixelRecipe(**PIXELS), TextureExtractor(PIXELS["working_size"])
    texts = training_captions(fit_on + probes)

    def features(pictures: list[Pixels]) -> Doubles:
        return extractor.extract(np.stack([recipe_pixels.normalise(picture) for picture in pictures])).astype(np.float64)

    pictures, generator, prompt = [], [], []
    for g, candidate in enumerate(candidates):
        for p, text in enumerate(texts[:fit_on]):
            pictures += candidate.make([text] * 4, [FIRST_SEED + k for k in range(4)], 8)
            generator += [g] * 4
            prompt += [p] * 4
    clean = features(pictures)
    constants = fit_constants(
        clean, extractor.block_sizes, np.array(generator), np.array(prompt), degraded(pictures[::4], clean[::4], features)
    )

    uncalibrated = space("texture", "", recipe_pixels, extractor, constants)
    tagger = Tagger(zoo.bundle(zoo.TAGGER), pool)
    points: list[CalibrationPoint] = []
    figures = {}
    for steps in STEPS:
        options = Options(references=max(generators.REFERENCES), steps=steps)
        measured = generators.measure(Attributor(candidates, tagger, uncalibrated, pool, options), texts[fit_on:], probe_steps=PROBE_STEPS)
        points += measured.calibration.points
        figures[f"{steps} steps"] = measured.figures
    source = f"{probes} zoo probes of training captions, clean and degraded ({', '.join(generators.DEGRADATIONS)})"
    fitted = Calibration(tuple(points), source, candidates=measured.calibration.candidates)
    fields = {
        "kind": "extractor",
        "name": "texture",
        "family": "texture",
        "licence": "Apache-2.0",
        "pixels": PIXELS,
        "calibration": fitted.to_json(),
        "card": {"fitted_on": f"{fit_on} training captions × {len(candidates)} zoo candidates × 4 pictures"},
    }
    bundles.write(to, fields, {}, constants=pack(constants))
    return {"figures": figures, "domain": domain.fit(to), **fitted.to_json()}


def degraded(pictures: list[Pixels], clean: Doubles, features: Any) -> dict[str, Doubles]:
    """Changes of the features of `pictures` under each family of degradations."""
    return {
        family: np.concatenate([features([perturbations.perturbation(name)(p) for p in pictures]) - clean for name in names])
        for family, names in perturbations.NUISANCE.items()
    }
