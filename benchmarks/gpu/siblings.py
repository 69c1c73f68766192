"""Ten candidates from three exports: siblings whose networks have hashes, engines and memory of their own.

A sibling's denoiser adds a constant to its output, as another bias in the last layer would. Its other networks are the same
under other hashes, so that candidates share no engine. They share large weights on disk only.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from diffusers import FluxPipeline

from gpu.peers import by_diffusers, opened
from gpu.rows import Pixels
from gpu.setting import FLUX, NAMES, SD15, SDXL, Setting
from resynth_fast.bundle import MANIFEST, OBJECTS, Bundle

COUNTS = {SD15: 5, SDXL: 3, FLUX: 2}
"""Candidates of each shape: by calculation 49 GB in 16 bits with FLUX at a quarter of its depth. With one pipeline of each
shape they fit a GPU of 80 GB."""
SHIFT = 0.1


@dataclass(frozen=True)
class Sibling:
    """The `number`-th candidate of a shape; the first is the export itself."""

    shape: str
    number: int
    bundle: Bundle

    @property
    def shift(self) -> float:
        """The constant that its denoiser adds to the output of the first one's."""
        return SHIFT * self.number


def ten(s: Setting) -> list[Sibling]:
    """The ten candidates. Missing ones are made in the folder of the bundles."""
    return [sibling for name in NAMES for sibling in siblings(s, name, COUNTS[name])]


def siblings(s: Setting, name: str, count: int) -> Iterator[Sibling]:
    """The first `count` candidates of one shape."""
    _, bundle = s.shaped(name)
    for number in range(count):
        yield Sibling(name, number, _written(bundle, number) if number else bundle)


class Loop:
    """The naive loop over the candidates, with one pipeline of each shape that takes each sibling's bias in turn.

    It takes as long as ten pipelines, which would not fit into memory together with ours. With `swapping`, a pipeline is
    moved to the device before it generates, and away afterwards.
    """

    def __init__(self, s: Setting, candidates: Sequence[Sibling], dtype: torch.dtype, *, swapping: bool) -> None:
        self.device, self.swapping, self.candidates = s.device, swapping, candidates
        home = torch.device("cpu") if swapping else s.device
        self.pipelines = {name: opened(s.shaped(name)[0], dtype, home) for name in NAMES}
        self.biases = {name: _last(pipeline).bias.detach().clone() for name, pipeline in self.pipelines.items()}

    def __call__(self, seeds: Sequence[int]) -> dict[str, list[Pixels]]:
        """Each candidate's pictures, one at a time."""
        return {sibling.bundle.name: self._generate(sibling, seeds) for sibling in self.candidates}

    @torch.inference_mode()
    def _generate(self, sibling: Sibling, seeds: Sequence[int]) -> list[Pixels]:
        pipeline = self.pipelines[sibling.shape]
        _last(pipeline).bias.copy_(self.biases[sibling.shape] + sibling.shift)
        pipeline.to(self.device)
        pictures = [picture for seed in seeds for picture in by_diffusers(pipeline, sibling.bundle, [seed])]
        if self.swapping:
            pipeline.to("cpu")
        return pictures


def _last(pipeline: Any) -> Any:
    """The last layer of a denoiser."""
    return pipeline.transformer.proj_out if isinstance(pipeline, FluxPipeline) else pipeline.unet.conv_out


def _written(bundle: Bundle, number: int) -> Bundle:
    """Write the bundle of a sibling next to `bundle`, unless it exists."""
    name = f"{bundle.name}-{number}"
    folder = bundle.folder.parent / name
    if not folder.exists():
        manifest = json.loads(json.dumps(dict(bundle.manifest))) | {"name": name}
        for part, component in bundle.components.items():
            graph = _altered(component.file.read(), number, SHIFT * number if part == "denoiser" else 0.0)
            sha256 = hashlib.sha256(graph).hexdigest()
            (bundle.folder.parent / OBJECTS / f"{sha256}.onnx").write_bytes(graph)
            manifest["components"][part]["sha256"] = sha256
        folder.mkdir()
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
    return Bundle.open(folder)


def _altered(graph: bytes, number: int, shift: float) -> bytes:
    """A copy of the graph with another hash. Its only output is increased by `shift`."""
    model: Any = onnx.load_from_string(graph)
    model.metadata_props.add(key="sibling", value=str(number))
    if shift:
        [output] = model.graph.output
        for node in model.graph.node:
            node.output[:] = ["unshifted" if name == output.name else name for name in node.output]
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(shift, np.float32), "shift"))
        model.graph.node.append(onnx.helper.make_node("Add", ["unshifted", "shift"], [output.name], name="shifted"))
    altered: bytes = model.SerializeToString()
    return altered
