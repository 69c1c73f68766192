"""Device and pipelines of a run: full pipelines on a GPU in 16 bits, or tiny ones on the CPU in float32."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import shapes
import torch
from roofline import peak

from resynth_fast.bundle import Bundle
from resynth_fast.engines.pool import EnginePool

SDXL, SD15, FLUX = NAMES = ("sdxl-turbo", "sd15", "flux-schnell")
SIXTEEN_BITS, FLOAT32 = 0.05, 2e-3
"""Largest allowed error: of a network's output relative to its largest value, and of a picture's mean difference in 0 … 1."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One run of the benchmark."""

    tiny: bool
    work: Path
    """Folder of checkpoints, bundles and plans."""
    depth: float = shapes.DEPTH
    """Share of FLUX's and T5's layers. FLUX's goals are scaled by it."""

    @property
    def device(self) -> torch.device:
        return torch.device("cpu" if self.tiny else "cuda")

    @property
    def rounds(self) -> int:
        return 1 if self.tiny else 15

    @property
    def few(self) -> int:
        """Number of rounds for calls that take seconds."""
        return 1 if self.tiny else 3

    @property
    def tolerance(self) -> float:
        return FLOAT32 if self.tiny else SIXTEEN_BITS

    @property
    def label(self) -> str | None:
        return None if self.tiny else torch.cuda.get_device_name()

    @property
    def plans(self) -> Path:
        """Folder of TensorRT plans."""
        return self.work / "plans"

    @property
    def flux(self) -> str:
        """FLUX's name in rows."""
        return f"{FLUX}, {'tiny' if self.tiny else f'depth {self.depth:g}'}"

    def dtype(self, name: str) -> torch.dtype:
        return torch.float32 if self.tiny else torch.bfloat16 if name == FLUX else torch.float16

    def ours(self, name: str) -> str:
        """The name of our backend, in the precision of the peers."""
        return "torch" if self.tiny else f"torch:cuda,{'bf16' if name == FLUX else 'fp16'}"

    def pool(self, backend: str, **settings: Any) -> EnginePool:
        return EnginePool(backend, threads=torch.get_num_threads(), strict=True, **settings)

    def shaped(self, name: str) -> tuple[Path, Bundle]:
        """Checkpoint and bundle of the pipeline `name`."""
        return shapes.exported(name, self.work, small=self.tiny, depth=self.depth)

    def limit_us(self, flops: float, name: str) -> float:
        """Microseconds for `flops` at the device's peak."""
        return 1e6 * flops / _peak(self.device, self.dtype(name))

    def finish(self) -> None:
        if not self.tiny:
            torch.cuda.synchronize()


@functools.cache
def _peak(device: torch.device, dtype: torch.dtype) -> float:
    """Peak FLOP/s of the device."""
    return peak(device, dtype)[0]
