"""Quality of the zoo: reconstruction error of the autoencoders, and agreement of the tagger with the captions of pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image

from resynth_fast.bundle import Bundle
from resynth_fast.captioners.tagger import Tagger
from resynth_fast.engines.pool import EnginePool

from . import autoencoder, tagger
from .attributes import ATTRIBUTES
from .faces import Faces
from .recipes import AUTOENCODERS, DENOISERS

FIRST_SEED = 1 << 33  # seeds that the tagger was not trained on
SHEET = 24


def table(work: Path, zoo: Path, count: int) -> None:
    """Print one row per autoencoder and per generator, each on `count` pictures of held-out captions."""
    faces = Faces(work / "faces", "test")
    rows = np.arange(count)
    captions, labels = [faces.captions[row] for row in rows], faces.labels[rows]
    judge = Tagger(Bundle.open(zoo / "tagger"), EnginePool(threads=torch.get_num_threads()))
    print(f"{'':18s} PSNR dB  agreement (goal .88 on reconstructions, .70 on samples)  " + " ".join(name[:10] for name in ATTRIBUTES))
    _row("drawings", judge, faces.pictures[rows], labels, "")
    for name in AUTOENCODERS:
        if (work / "autoencoders" / name / "training.json").exists():
            reconstructed = autoencoder.reconstruct(AutoencoderKL.from_pretrained(work / "autoencoders" / name), faces.pictures[rows])
            _row(name, judge, reconstructed, labels, f"{autoencoder.psnr(faces.pictures[rows], reconstructed):.2f}")
    for name in DENOISERS:
        if (zoo / name).exists():
            samples = tagger.samples(zoo, name, captions, FIRST_SEED)
            _row(name, judge, samples, labels, "")
            sheet(work / f"sheet-{name}.png", samples[:SHEET])
    (work / "sheet-captions.json").write_text(json.dumps(captions[:SHEET], indent=1))


def sheet(path: Path, pictures: tagger.Pictures, columns: int = 8) -> None:
    """A contact sheet of pictures (n, H, W, 3), doubled in size."""
    n, height, width, _ = pictures.shape
    grid = pictures.reshape(n // columns, columns, height, width, 3).transpose(0, 2, 1, 3, 4).reshape(-1, columns * width, 3)
    Image.fromarray(grid.repeat(2, 0).repeat(2, 1)).save(path)


def _row(name: str, judge: Tagger, pictures: tagger.Pictures, labels: tagger.Labels, psnr: str) -> None:
    tags = judge.tag(list(pictures))
    predicted = np.array([[options.index(tag[key]) for key, options in ATTRIBUTES.items()] for tag in tags])
    right = [float((predicted[:, j] == labels[:, j])[labels[:, j] >= 0].mean()) for j in range(len(ATTRIBUTES))]
    print(f"{name:18s} {psnr:>7s}  {np.mean(right):.3f}   " + " ".join(f"{value:.2f}" for value in right), flush=True)
