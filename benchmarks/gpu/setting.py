"""Where and on what is measured: full pipelines on a GPU in 16 bits, or tiny ones on the CPU in float32."""

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
"""Error allowed of a network, of its largest value; of pictures of 255 the mean may differ by so much of 255."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One run of the benchmark."""

    tiny: bool
    work: Path
    """Folder of checkpoints, bundles and plans."""
    depth: float = shapes.DEPTH
    """Share of FLUX's and T5's layers, of which its goals are a share as well."""

    @property
    def device(self) -> torch.device:
        return torch.device("cpu" if self.tiny else "cuda")

    @property
    def rounds(self) -> int:
        return 1 if self.tiny else 15

    @property
    def few(self) -> int:
        """Rounds of what takes seconds."""
        return 1 if self.tiny else 3

    @property
    def tolerance(self) -> float:
        return FLOAT32 if self.tiny else SIXTEEN_BITS

    @property
    def label(self) -> str | None:
        return None if self.tiny else torch.cuda.get_device_name()

    @property
    def plans(self) -> Path:
        """Where TensorRT's are."""
        return self.work / "plans"

    @property
    def flux(self) -> str:
        """What rows say of FLUX."""
        return f"{FLUX}, {'tiny' if self.tiny else f'depth {self.depth:g}'}"

    def dtype(self, name: str) -> torch.dtype:
        return torch.float32 if self.tiny else torch.bfloat16 if name == FLUX else torch.float16

    def ours(self, name: str) -> str:
        """Our backend in the precision of the peers."""
        return "torch" if self.tiny else f"torch:cuda,{'bf16' if name == FLUX else 'fp16'}"

    def pool(self, backend: str, **settings: Any) -> EnginePool:
        return EnginePool(backend, threads=torch.get_num_threads(), strict=True, **settings)

    def shaped(self, name: str) -> tuple[Path, Bundle]:
        """Checkpoint and bundle."""
        return shapes.exported(name, self.work, small=self.tiny, depth=self.depth)

    def limit_us(self, flops: float, name: str) -> float:
        """Microseconds that so much arithmetic takes at the device's peak."""
        return 1e6 * flops / _peak(self.device, self.dtype(name))

    def finish(self) -> None:
        if not self.tiny:
            torch.cuda.synchronize()


@functools.cache
def _peak(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s."""
    return peak(device, dtype)[0]
