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
from resynth_fast.evaluation.zoo import generate_probes, reference_points
from resynth_fast.extractors.pixels import PixelRecipe
from resynth_fast.extractors.space import pack, space
from resynth_fast.extractors.texture import TextureExtractor
from resynth_fast.images import perturbations
from resynth_fast.options import Options
from resynth_fast.scoring.calibration import Calibration, fit_point
from resynth_fast.scoring.score import score
from resynth_fast.scoring.whitening import fit_constants
from resynth_fast.types import Doubles, Pixels

from .. import bundles
from . import domain
from .attributes import training_captions

PIXELS: dict[str, Any] = {"working_size": 64, "border": 0.0, "jpeg_quality": None}
REFERENCES = (1, 2, 4, 6, 8)
STEPS = (4, 8)
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

    def attributor(references: int, steps: int) -> Attributor:
        uncalibrated = space("texture", "", recipe_pixels, extractor, constants)
        return Attributor(candidates, Tagger(zoo.bundle(zoo.TAGGER), pool), uncalibrated, pool, Options(references=references, steps=steps))

    labelled = generate_probes(candidates, texts[fit_on:], [i % len(candidates) for i in range(probes)], seed=1 << 10, steps=20)
    pixels, truth = [probe.pixels for probe in labelled], [probe.truth for probe in labelled]
    points, hits = [], {}
    for steps in STEPS:
        judge = attributor(max(REFERENCES), steps)
        within_trace = judge.space.whitening.within_trace
        own, written = judge.space(pixels), judge.captioner.caption(pixels)
        resynthesised = reference_points(judge, list(dict.fromkeys(written)))
        for count in REFERENCES:
            references = [[resynthesised[text, candidate.name][:count] for candidate in candidates] for text in written]
            guidance = [[judge.references.executor.guidance(candidate.name)[:count] for candidate in candidates]] * len(references)
            scored = score(own[:, None], references, within_trace=within_trace, guidance=guidance)
            scores, consistency = (values[:, 0] for values in scored)
            points.append(fit_point(count, steps, scores, consistency, truth))
            hits[f"{count} references, {steps} steps"] = float(np.mean(scores.argmax(1) == truth))
    fitted = Calibration(
        tuple(points), f"{probes} zoo probes of training captions", candidates=tuple(sorted(candidate.sha256 for candidate in candidates))
    )
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
    return {"top1": hits, "domain": domain.fit(to), **fitted.to_json()}


def degraded(pictures: list[Pixels], clean: Doubles, features: Any) -> dict[str, Doubles]:
    """Changes of the features of `pictures` under each family of degradations."""
    return {
        family: np.concatenate([features([perturbations.perturbation(name)(p) for p in pictures]) - clean for name in names])
        for family, names in perturbations.NUISANCE.items()
    }
