"""Export image encoders of transformers to ONNX files, for `extractors`: CLIP, DINOv2, SigLIP and SigLIP 2."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from resynth_fast.errors import ConfigError

from . import checkpoints, graphs, preprocessing
from .graphs import Network
from .preprocessing import Preprocessing


@dataclass(frozen=True, kw_only=True)
class Exported:
    """The module of an exported graph, for the comparison. Both take pictures normalised by `pictures`."""

    module: torch.nn.Module
    pictures: Preprocessing

    @torch.no_grad()
    def states(self, pixel_values: torch.Tensor) -> list[torch.Tensor]:
        """Outputs of the module's blocks, (b, t, d) each: the expected taps."""
        found: list[torch.Tensor] = []

        def keep(_: Any, __: Any, output: Any) -> None:
            found.append(output if isinstance(output, torch.Tensor) else output[0])

        [blocks] = [part for name, part in self.module.named_modules() if name.endswith((".encoder.layers", ".encoder.layer"))]
        hooks = [block.register_forward_hook(keep) for block in blocks.children()]
        try:
            self.module(pixel_values)
        finally:
            for hook in hooks:
                hook.remove()
        return found


class Pictures(torch.nn.Module):
    """`pixel_values` (b, 3, S, S), normalised → the encoder's embedding of the picture (b, d)."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        output = self.model(pixel_values=pixel_values)
        found: torch.Tensor = output.image_embeds if "image_embeds" in output else output.pooler_output
        return found


class Patches(torch.nn.Module):
    """An encoder that takes pictures of any shape as rows of patches (SigLIP 2, NaFlex), fixed to one square shape."""

    positions: torch.Tensor

    def __init__(self, model: Any, side: int) -> None:
        super().__init__()
        self.model, self.patch = model, model.config.patch_size
        grid, embeddings = side // self.patch, model.embeddings
        table = embeddings.position_embedding.weight.reshape(embeddings.position_embedding_size, embeddings.position_embedding_size, -1)
        with torch.no_grad():
            positions = embeddings.resize_positional_embeddings(table, torch.tensor([[grid, grid]]), max_length=grid * grid)
        self.register_buffer("positions", positions, persistent=False)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        patches = pixel_values.unfold(2, self.patch, self.patch).unfold(3, self.patch, self.patch)
        rows = patches.permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)  # (b, n, patch · patch · 3), channels last
        states = self.model.encoder(inputs_embeds=self.model.embeddings.patch_embedding(rows) + self.positions).last_hidden_state
        found: torch.Tensor = self.model.head(self.model.post_layernorm(states))
        return found


def names() -> list[str]:
    """Architectures that can be exported, by the `model_type` of their config."""
    return sorted(_ARCHITECTURES)


@checkpoints.quiet()
def export(folder: Path, path: Path) -> Exported:
    """Write the image encoder in `folder` to `path`; ConfigError if it cannot be exported, or if its weights are not safetensors."""
    kind = str(checkpoints.read_json(folder / "config.json").get("model_type"))
    if kind not in _ARCHITECTURES:
        raise ConfigError(f"{folder} is a model of type {kind[:80]!r}; the exporter supports {', '.join(names())}; or give an ONNX file")
    pictures = preprocessing.read(folder)
    module = _ARCHITECTURES[kind](folder, pictures.side)

    def example(batch: int) -> dict[str, torch.Tensor]:
        rng = torch.Generator().manual_seed(batch)
        return {"pixel_values": torch.randn(batch, 3, pictures.side, pictures.side, generator=rng)}

    # Not named `embedding`: the exporter gives that name to the output of torch.embedding.
    graphs.export(Network(module, example, ("whole_picture",)), path, halved=False)
    return Exported(module=module, pictures=pictures)


def _whole(folder: Path) -> bool:
    """Whether the checkpoint also has a text tower, which is dropped."""
    return "text_config" in checkpoints.read_json(folder / "config.json")


def _of_size(model: Any, side: int, folder: Path) -> Any:
    """An encoder of one fixed size, which must be `side`."""
    if model.config.image_size != side:
        raise ConfigError(
            f"{folder}: its processor makes pictures of {side} px, but its config takes {model.config.image_size} px; "
            "they must agree: fetch the checkpoint again"
        )
    return model


def _clip(folder: Path, side: int) -> torch.nn.Module:
    if not _whole(folder):
        return Pictures(_of_size(checkpoints.network(folder, transformers.CLIPVisionModelWithProjection), side, folder))
    whole: Any = checkpoints.network(folder, transformers.CLIPModel)
    model: Any = transformers.CLIPVisionModelWithProjection(whole.config.vision_config).eval()
    model.load_state_dict(
        {key: value for key, value in whole.state_dict().items() if key.startswith(("vision_model.", "visual_projection."))}
    )
    return Pictures(_of_size(model, side, folder))


def _dinov2(folder: Path, side: int) -> torch.nn.Module:
    """An encoder of any size that is a multiple of its patches: position embeddings are interpolated once, at export."""
    model: Any = checkpoints.network(folder, transformers.Dinov2Model)
    return Pictures(model)


def _siglip(folder: Path, side: int) -> torch.nn.Module:
    model: Any = checkpoints.network(folder, transformers.SiglipModel if _whole(folder) else transformers.SiglipVisionModel)
    return Pictures(_of_size(model.vision_model if _whole(folder) else model, side, folder))


def _siglip2(folder: Path, side: int) -> torch.nn.Module:
    model: Any = checkpoints.network(folder, transformers.Siglip2Model if _whole(folder) else transformers.Siglip2VisionModel)
    return Patches(model.vision_model if _whole(folder) else model, side)


_ARCHITECTURES: dict[str, Callable[[Path, int], torch.nn.Module]] = {
    "clip": _clip,
    "clip_vision_model": _clip,
    "dinov2": _dinov2,
    "siglip": _siglip,
    "siglip_vision_model": _siglip,
    "siglip2": _siglip2,
    "siglip2_vision_model": _siglip2,
}
