"""Train and export the zoo's captioner: a small network that classifies the attributes of a face.

It must caption generated pictures, not only drawings. So beside drawings it learns from reconstructions by the candidates'
autoencoders (with latent noise) and from the candidates' own pictures of training captions.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from diffusers import AutoencoderKL
from torch import nn
from torch.nn import functional as F

from resynth_fast.bundle import Bundle
from resynth_fast.candidates.engine import EngineCandidate
from resynth_fast.engines.pool import EnginePool
from resynth_fast.types import Bytes, Integers

from .. import bundles
from ..graphs import Network
from ..weights import round_weights, weights_sha256
from . import assemble, autoencoder
from .attributes import ATTRIBUTES, PHRASES, SENTENCE
from .faces import SIDE, Faces
from .recipes import DENOISERS
from .training import Schedule, fit

SCHEDULE = Schedule(
    steps=1000,
    batch=64,
    learning_rate=3e-3,
    seed=6,
    weight_decay=2e-2,
    checkpoint_every=1000,  # dropout does not use the generator that a checkpoint stores, so training is never resumed half-way
)
CHANNELS = (24, 48, 96, 128)
RECONSTRUCTIONS = 1200  # per autoencoder
SAMPLES = 480  # per candidate
SAMPLE_STEPS = 8
SHARES = (0.4, 0.25, 0.35)  # shares of a batch: drawings, reconstructions, samples
FIRST_SEED = 1 << 32  # far from the seeds of any attribution

Pictures = Bytes
Labels = Integers


class Tagger(nn.Module):
    """`pixels` (b, 3, 64, 64) in [0, 1] → logits (b, labels) of each attribute."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width, wider in zip((3, *CHANNELS), CHANNELS, strict=False):
            layers += [nn.Conv2d(width, wider, 3, 2, 1, bias=False), nn.BatchNorm2d(wider), nn.ReLU()]
            layers += [nn.Conv2d(wider, wider, 3, 1, 1, bias=False), nn.BatchNorm2d(wider), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.heads = nn.ModuleList([nn.Linear(CHANNELS[-1] * (SIDE // 16) ** 2, len(labels)) for labels in ATTRIBUTES.values()])

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        features = F.dropout(self.body(pixels * 2 - 1).flatten(1), 0.3, self.training)
        return tuple(head(features) for head in self.heads)

    def fused(self) -> Tagger:
        """The same network with each normalisation folded into the convolution before it."""
        assert not self.training
        layers = list(self.body)
        folded: list[nn.Module] = []
        for convolution, norm, activation in zip(layers[::3], layers[1::3], layers[2::3], strict=True):
            assert isinstance(convolution, nn.Conv2d)
            assert isinstance(norm, nn.BatchNorm2d)
            folded += [nn.utils.fuse_conv_bn_eval(convolution, norm), activation]
        fused = Tagger().eval()
        fused.body, fused.heads = nn.Sequential(*folded), self.heads
        return fused


def train(work: Path, zoo: Path) -> dict[str, float]:
    """Train on drawings and `generated_pictures`; the weights go to `work / "tagger"`."""
    faces = Faces(work / "faces", "train")
    parts = [(np.asarray(faces.pictures), faces.labels), *generated_pictures(work, zoo, faces)]
    torch.manual_seed(SCHEDULE.seed)
    model = Tagger()
    counts = [round(share * SCHEDULE.batch) for share in SHARES]

    def loss(rng: torch.Generator) -> torch.Tensor:
        rows = [torch.randint(len(labels), (count,), generator=rng).numpy() for (_, labels), count in zip(parts, counts, strict=True)]
        pixels = _pixels(np.concatenate([pictures[r] for (pictures, _), r in zip(parts, rows, strict=True)]))
        labels = torch.from_numpy(np.concatenate([labels[r] for (_, labels), r in zip(parts, rows, strict=True)]))
        logits = model(_degraded(pixels, rng))
        return torch.stack([F.cross_entropy(x, labels[:, j], ignore_index=-1) for j, x in enumerate(logits)]).sum()

    record = fit(model, loss, SCHEDULE, work / "tagger.pt")
    record["parameters"] = sum(p.numel() for p in model.parameters())
    folder = work / "tagger"
    folder.mkdir(exist_ok=True)
    torch.save(model.state_dict(), folder / "tagger.pt")
    return record


def export(work: Path, to: Path) -> Bundle:
    """The captioner's bundle in the folder `to`."""
    model = Tagger()
    model.load_state_dict(torch.load(work / "tagger" / "tagger.pt", weights_only=True))
    fused = model.eval().fused()
    round_weights(fused)

    def example(batch: int) -> dict[str, torch.Tensor]:
        return {"pixels": torch.rand((batch, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(batch))}

    card = {
        "description": "Reads the attributes of the zoo's drawn faces; its caption of any other picture is meaningless.",
        "data": f"pictures of 64×64 px {assemble.ART}, their reconstructions, and the candidates' own pictures of training captions",
        "training": json.loads((work / "tagger" / "training.json").read_text()),
    }
    fields = {
        "kind": "captioner",
        "name": "tagger",
        "family": "tagger",
        "licence": "Apache-2.0",
        "card": card,
        "source": {"checkpoint": "tagger", "sha256": weights_sha256(fused)},
        "attributes": {name: list(labels) for name, labels in ATTRIBUTES.items()},
        "sentence": SENTENCE,
        "phrases": PHRASES,
    }
    return bundles.write(to, fields, {"tagger": Network(fused, example, tuple(f"logits_{name}" for name in ATTRIBUTES))})


def generated_pictures(work: Path, zoo: Path, faces: Faces) -> list[tuple[Pictures, Labels]]:
    """(pictures, labels) of reconstructions and of samples, without withheld generators. Cached in `work / "tagger.npz"`."""
    path = work / "tagger.npz"
    if not path.exists():
        candidates = [name for name in DENOISERS if name not in assemble.WITHHELD]
        rng = np.random.default_rng(SCHEDULE.seed)
        parts: dict[str, list[npt.NDArray[Any]]] = {"reconstructions": [], "reconstructed": [], "samples": [], "sampled": []}
        for name in sorted({DENOISERS[name].autoencoder for name in candidates}):
            rows = rng.choice(len(faces), RECONSTRUCTIONS, replace=False)
            vae = AutoencoderKL.from_pretrained(work / "autoencoders" / name)
            parts["reconstructions"].append(noisy_reconstructions(vae, faces.pictures[rows]))
            parts["reconstructed"].append(faces.labels[rows])
        for i, name in enumerate(candidates):
            rows = rng.choice(len(faces), SAMPLES, replace=False)
            parts["samples"].append(samples(zoo, name, [faces.captions[row] for row in rows], FIRST_SEED + i * SAMPLES))
            parts["sampled"].append(faces.labels[rows])
        np.savez(path, **{key: np.concatenate(arrays) for key, arrays in parts.items()})  # type: ignore[arg-type]
    stored = np.load(path)
    return [(stored["reconstructions"], stored["reconstructed"]), (stored["samples"], stored["sampled"])]


@torch.no_grad()
def noisy_reconstructions(vae: AutoencoderKL, pictures: Pictures) -> Pictures:
    """Pictures (n, H, W, 3) encoded and decoded, with latent noise of up to 0.3 standard deviations."""
    rng = torch.Generator().manual_seed(0)
    mean = autoencoder.encode(vae, pictures)[:, : vae.config.latent_channels]
    level = 0.3 * mean.std() * torch.rand(len(mean), 1, 1, 1, generator=rng)
    latents = mean + level * torch.randn(mean.shape, generator=rng)
    return np.concatenate([autoencoder.as_pictures(vae.decode(part).sample) for part in torch.split(latents, 50)])


def samples(zoo: Path, name: str, captions: Sequence[str], first_seed: int) -> Pictures:
    """The exported candidate's own pictures (n, H, W, 3) of `captions`."""
    candidate = EngineCandidate(Bundle.open(zoo / name), EnginePool(threads=torch.get_num_threads()))
    pictures: list[Bytes] = []
    for i in range(0, len(captions), 16):
        part = captions[i : i + 16]
        pictures += candidate.make(part, range(first_seed + i, first_seed + i + len(part)), SAMPLE_STEPS)
    return np.stack(pictures)


def _pixels(pictures: Pictures) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 255


def _degraded(pixels: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
    """Pixels (b, 3, H, W) shifted by up to 2 px, half of them blurred, all with noise, like the pictures that a captioner gets."""
    batch, _, height, width = pixels.shape
    padded = F.pad(pixels, (2, 2, 2, 2), mode="replicate")
    across, down = torch.randint(5, (2, batch), generator=rng).tolist()
    shifted = torch.stack([p[:, y : y + height, x : x + width] for p, x, y in zip(padded, across, down, strict=True)])
    blurred = F.avg_pool2d(F.pad(shifted, (1, 1, 1, 1), mode="replicate"), 3, 1)
    blur = (torch.rand(batch, 1, 1, 1, generator=rng) * 2 - 1).clamp(min=0)
    noise = torch.randn(pixels.shape, generator=rng) * torch.rand(batch, 1, 1, 1, generator=rng) * 0.05
    return torch.lerp(shifted, blurred, blur) + noise
