"""Write `examples/`: the first two pictures of each generator and two drawn faces, not selected, in shuffled order."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from resynth_fast import zoo
from resynth_fast.candidates.engine import EngineCandidate
from resynth_fast.engines.pool import EnginePool
from resynth_fast.evaluation.zoo import PROBE_SEEDS

from .faces import Faces

STEPS = 20


def write(to: Path, faces: Path) -> None:
    """Write pictures `01.png` … and `truth.json`: {file: generator, or "unknown"}."""
    pool = EnginePool(threads=2)
    pictures = []
    for i, bundle in enumerate((*zoo.candidates(), *zoo.withheld())):
        captions = zoo.prompts()[2 * i : 2 * i + 2]
        truth = bundle.name if bundle.manifest.get("role") == "candidate" else "unknown"
        generated = EngineCandidate(bundle, pool).make(captions, [PROBE_SEEDS, PROBE_SEEDS + 1], STEPS)
        pictures += [(truth, pixels) for pixels in generated]
    pictures += [("unknown", pixels) for pixels in Faces(faces, "test").pictures[:2]]
    to.mkdir(exist_ok=True)
    answers = {}
    for number, i in enumerate(np.random.default_rng(0).permutation(len(pictures)), start=1):
        truth, pixels = pictures[i]
        answers[f"{number:02}.png"] = truth
        Image.fromarray(pixels).save(to / f"{number:02}.png")
    (to / "truth.json").write_text(json.dumps(answers, indent=1) + "\n")
