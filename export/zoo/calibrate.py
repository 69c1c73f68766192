"""Fit the constants of the zoo's texture extractor and calibrate the verdict, on captions the models were trained on.

Nothing here sees a held-out caption, a probe of an evaluation or the withheld generator.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from resynth_fast import zoo
from resynth_fast.attributor import Attributor, Options
from resynth_fast.candidates import find
from resynth_fast.candidates.engine import EngineCandidate
from resynth_fast.captioners.tagger import Tagger
from resynth_fast.engines import EnginePool
from resynth_fast.evaluation.zoo import draw
from resynth_fast.evaluation.zoo import references as references_of
from resynth_fast.extractors.space import Calibration, FeatureSpace
from resynth_fast.extractors.texture import TextureExtractor
from resynth_fast.pixels import PixelRecipe
from resynth_fast.recipe import fit, fit_temperature
from resynth_fast.verdict import decide

from .. import bundles

WORKING_SIZE = 64


def calibrate(to: Path, captions: list[str], *, fit_on: int = 60, references: int = 4, seed: int = 1 << 36) -> dict[str, Any]:
    """Write the `texture` bundle into `to`; returns what was measured on the calibration probes (the rest of `captions`)."""
    pool = EnginePool(threads=2)
    candidates = find(["zoo:"], pool)
    pixels: dict[str, Any] = {"working_size": WORKING_SIZE, "border": 0.0, "jpeg_quality": None}
    extractor = TextureExtractor(WORKING_SIZE)
    unfitted = FeatureSpace("texture", "", "texture", PixelRecipe(**pixels), extractor, None, Calibration(1.0, -1.0, ""))  # type: ignore[arg-type]

    pictures, generator, prompt = [], [], []
    for g, candidate in enumerate(candidates):
        for p, text in enumerate(captions[:fit_on]):
            pictures += candidate.make([text] * 4, [seed + k for k in range(4)], 8)
            generator += [g] * 4
            prompt += [p] * 4
    constants = fit(unfitted.features(pictures), extractor.block_sizes, np.array(generator), np.array(prompt))
    space = FeatureSpace("texture", "", "texture", PixelRecipe(**pixels), extractor, constants, Calibration(1.0, -1.0, ""))

    attributor = Attributor(candidates, Tagger(zoo.bundle(zoo.TAGGER), pool), space, pool, Options(references=references))
    engines = [c for c in candidates if isinstance(c, EngineCandidate)]
    truth = [i % len(engines) for i in range(len(captions) - fit_on)]
    probes = draw(engines, captions[fit_on:], truth, seed=1 << 10, steps=20)
    points = space([p.pixels for p in probes])
    texts = attributor.captioner.caption([p.pixels for p in probes])
    rows, consistency, hits = [], [], []
    made = references_of(attributor, list(dict.fromkeys(texts)))
    for probe, point, text in zip(probes, points, texts, strict=True):
        decision = decide(point, [], [made[text, c.name] for c in candidates], space.calibration)
        rows.append(decision.scores)
        consistency.append(decision.consistency)
        hits.append(decision.order[0] == probe.truth)
    calibration = {
        "temperature": fit_temperature(rows, [p.truth for p in probes]),
        "unknown_below": float(np.quantile(consistency, 0.05)),
        "source": f"{len(probes)} zoo probes of training captions, {references} references",
    }
    arrays = {name: getattr(constants, name).astype(np.float32) for name in ("mean", "scale", "values")}
    fields = {
        "kind": "extractor", "name": "texture", "family": "texture", "licence": "Apache-2.0", "pixels": pixels, "calibration": calibration,
        "card": {"fitted_on": f"{fit_on} training captions × {len(candidates)} zoo candidates × 4 pictures"},
    }  # fmt: skip
    bundles.write(to, fields, {}, constants=save({**arrays, "vectors": constants.vectors.astype(np.float16)}))
    return {"top1": float(np.mean(hits)), **calibration}
