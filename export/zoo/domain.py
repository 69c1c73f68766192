"""Fit what the zoo's extractor and captioner know: pictures by the candidates, clean and degraded, of training captions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from resynth_fast import zoo
from resynth_fast.bundle import Bundle
from resynth_fast.candidates.engine import EngineCandidate
from resynth_fast.engines.pool import EnginePool
from resynth_fast.evaluation.zoo import generate_probes
from resynth_fast.extractors.domain import textures
from resynth_fast.files import pack_arrays
from resynth_fast.images import perturbations
from resynth_fast.scoring.domain import Domain
from resynth_fast.types import Floats, Pixels

from .. import bundles
from .attributes import training_captions

CAPTIONS, HELD_OUT = 90, 115
STEPS = (8, 20)
DEGRADED = 3
"""Each third picture is degraded."""
SEED = 1 << 11


def fit(to: Path) -> dict[str, Any]:
    """Give the bundles `texture` and `tagger` in `to` a domain; returns its limit and the pictures it was fitted on.

    Captioner and extractor see the same pictures, which are described alike, so one file serves both.
    """
    pool = EnginePool(threads=2)
    candidates = [EngineCandidate(bundle, pool) for bundle in zoo.candidates()]
    texts, size = training_captions(CAPTIONS + HELD_OUT), Bundle.open(to / zoo.TEXTURE).get("pixels", dict)["working_size"]
    known: list[Pixels] = []
    for k, candidate in enumerate(candidates):
        for steps in STEPS:
            probes = generate_probes([candidate], texts[:CAPTIONS], [0] * CAPTIONS, seed=SEED + k, steps=steps)
            known += [probe.pixels for probe in probes]
    truth = [i % len(candidates) for i in range(HELD_OUT)]
    probes = generate_probes(candidates, texts[CAPTIONS:], truth, seed=SEED + len(candidates), steps=max(STEPS))
    domain = Domain.fit(_conditions(known, size, DEGRADED), _conditions([probe.pixels for probe in probes], size))
    packed = pack_arrays(domain.arrays())
    bundles.set_domain(Bundle.open(to / zoo.TEXTURE), packed)
    bundles.set_domain(Bundle.open(to / zoo.TAGGER), packed, working_size=size)
    bundles.prune(to)
    return {"limit": domain.limit, "fitted_on": len(known), "held_out": len(probes)}


def _conditions(pictures: list[Pixels], size: int, every: int = 1) -> dict[str, Floats]:
    """Features of `pictures` as they are, and of each `every`th under each degradation that a domain knows."""
    changes = {name: perturbations.perturbation(name) for name in perturbations.DOMAIN}
    degraded = {name: textures([change(picture) for picture in pictures[::every]], size) for name, change in changes.items()}
    return {"clean": textures(pictures, size), **degraded}
