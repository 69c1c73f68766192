"""The zoo's training pictures: faces drawn by DiceBear (Node.js) from given attributes."""

from __future__ import annotations

import json
import subprocess
from itertools import islice
from pathlib import Path

import numpy as np

from resynth_fast.types import Bytes

from .attributes import ATTRIBUTES, caption, draw, held_out

SIDE = 64
RENDERER = Path(__file__).with_name("faces.mjs")


def render(faces: list[dict[str, str]], node_folder: Path, first_seed: int) -> Bytes:
    """Pictures `(n, 64, 64, 3)` of `faces`; the seed of each face chooses among the variants of its features."""
    raw = node_folder / f"faces-{first_seed}.rgb"
    job = json.dumps([{**face, "seed": first_seed + i} for i, face in enumerate(faces)])
    try:
        subprocess.run(["node", str(RENDERER), str(raw)], input=job, text=True, check=True, cwd=node_folder)
        return np.fromfile(raw, np.uint8).reshape(-1, SIDE, SIDE, 3)
    finally:
        raw.unlink(missing_ok=True)


def write(folder: Path, node_folder: Path, count: int, seed: int) -> None:
    """Draw `count` faces into `folder`: `pictures.npy`, `faces.json` (attributes, in order)."""
    faces = list(islice(draw(np.random.default_rng(seed)), count))
    pictures = np.concatenate([render(faces[i : i + 500], node_folder, seed * 1_000_000 + i) for i in range(0, count, 500)])
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "pictures.npy", pictures)
    (folder / "faces.json").write_text(json.dumps(faces))


class Faces:
    """Pictures, captions and labels of one split: `test` has the held-out captions, `train` all others."""

    def __init__(self, folder: Path, split: str) -> None:
        faces = json.loads((folder / "faces.json").read_text())
        captions = [caption(face) for face in faces]
        rows = np.flatnonzero([held_out(text) == (split == "test") for text in captions])
        self.captions = [captions[i] for i in rows]
        self.pictures: Bytes = np.load(folder / "pictures.npy", mmap_mode="r")[rows]
        self.labels = np.array([[ATTRIBUTES[name].index(faces[i][name]) for name in ATTRIBUTES] for i in rows])
        # A bald head has no hair colour, so its label is ignored.
        self.labels[
            self.labels[:, list(ATTRIBUTES).index("hair")] == ATTRIBUTES["hair"].index("bald"), list(ATTRIBUTES).index("hair_colour")
        ] = -1

    def __len__(self) -> int:
        return len(self.captions)
