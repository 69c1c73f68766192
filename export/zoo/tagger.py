"""Train and export the zoo's captioner: a small network that reads attributes off a picture."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from resynth_fast.bundle import Bundle

from .. import bundles, graphs
from .attributes import ATTRIBUTES, PHRASES, SENTENCE
from .faces import SIDE
from .training import Schedule, fit

SCHEDULE = Schedule(steps=1500, batch=64, learning_rate=2e-3, seed=7, weight_decay=2e-2)


class Tagger(torch.nn.Module):
    """pixels (b, 3, 64, 64) in [0, 1] → one tensor of logits (b, labels) for each attribute."""

    def __init__(self) -> None:
        super().__init__()
        widths, layers = (3, 24, 48, 96, 128), []
        for a, b in pairwise(widths):
            layers += [
                torch.nn.Conv2d(a, b, 3, 2, 1), torch.nn.GroupNorm(8, b), torch.nn.ReLU(),
                torch.nn.Conv2d(b, b, 3, 1, 1, groups=b // 8), torch.nn.GroupNorm(8, b), torch.nn.ReLU(),
            ]  # fmt: skip
        self.features = torch.nn.Sequential(*layers)
        self.heads = torch.nn.ModuleList([torch.nn.Linear(128 * 16, len(labels)) for labels in ATTRIBUTES.values()])

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        hidden = self.features(pixels * 2 - 1).flatten(1)
        return tuple(head(F.dropout(hidden, 0.2, self.training)) for head in self.heads)


def train(
    pictures: Sequence[npt.NDArray[np.uint8]], labels: Sequence[npt.NDArray[np.int64]], checkpoint: Path
) -> tuple[Tagger, dict[str, float]]:
    """A tagger of sets of pictures (n, 64, 64, 3), each set drawn from equally often: drawn faces, decoded ones, generated ones."""
    torch.manual_seed(SCHEDULE.seed)
    model = Tagger()
    targets = [torch.from_numpy(rows) for rows in labels]

    def loss(rng: torch.Generator) -> torch.Tensor:
        parts, wanted = [], []
        for images, target in zip(pictures, targets, strict=True):
            rows = torch.randint(len(images), (SCHEDULE.batch // len(pictures),), generator=rng)
            parts.append(torch.from_numpy(images[rows.numpy()]).permute(0, 3, 1, 2).float() / 255)
            wanted.append(target[rows])
        batch, target = torch.cat(parts), torch.cat(wanted)
        dx, dy = torch.randint(-2, 3, (2,), generator=rng).tolist()
        batch = torch.roll(batch, (dx, dy), (2, 3)) + 0.06 * torch.rand(1, generator=rng) * torch.randn(batch.shape, generator=rng)
        return torch.stack([F.cross_entropy(h, target[:, j], ignore_index=-1) for j, h in enumerate(model(batch))]).sum()

    return model, fit(model, loss, SCHEDULE, checkpoint)


@torch.no_grad()
def agreement(model: Tagger, pictures: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> float:
    """Share of attributes (those that apply) that the tagger names as they were asked for."""
    outputs = model(torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255)
    predicted = torch.stack([o.argmax(1) for o in outputs], 1).numpy()
    return float((predicted == labels)[labels >= 0].mean())


def export(model: Tagger, to: Path, card: dict[str, Any]) -> Bundle:
    """The tagger as a captioner bundle in the folder of bundles `to`, with the sentence that it fills in."""
    graphs.round_weights(model)

    def example(batch: int) -> dict[str, torch.Tensor]:
        return {"pixels": torch.rand(batch, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(batch))}

    fields = {
        "kind": "captioner", "name": "tagger", "family": "tagger", "licence": "Apache-2.0", "sentence": SENTENCE, "phrases": PHRASES,
        "attributes": {name: list(values) for name, values in ATTRIBUTES.items()}, "card": card,
    }  # fmt: skip
    return bundles.write(to, fields, {"tagger": graphs.Network(model, example, tuple(f"logits_{name}" for name in ATTRIBUTES))})
