"""Upper bounds on speed: the FLOP of a network and the peak FLOP/s of a device."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

PEAK_FLOPS = {"H100 80GB HBM3": 989.4e12, "H100 SXM": 989.4e12, "H100 PCIe": 756e12, "H200": 989.4e12, "A100": 312e12}
"""Dense FLOP/s in bfloat16 and float16 by part of the device's name, from NVIDIA's data sheets."""


@torch.inference_mode()
def flops(module: torch.nn.Module, inputs: Mapping[str, torch.Tensor]) -> int:
    """FLOP of one forward pass in matrix products, convolutions and attention; a multiply-add counts as two."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # fused attention is counted on some devices only
        module(**inputs)
    return int(counter.get_total_flops())


def peak(device: torch.device, dtype: torch.dtype) -> tuple[float, str]:
    """FLOP/s of `device` and the source of the figure: its data sheet, else the fastest square matrix product."""
    if device.type == "cuda" and dtype.itemsize == 2:
        name = torch.cuda.get_device_name(device)
        for model, value in PEAK_FLOPS.items():
            if model in name:
                return value, f"data sheet of {model}"
    return _measured(device, dtype), "best matrix product measured"


def _measured(device: torch.device, dtype: torch.dtype) -> float:
    rates = []
    for side in (4096, 8192) if device.type == "cuda" else (512, 1024):
        a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
        for _ in range(12):  # the first ones warm up; the best counts
            start = time.perf_counter()
            (a @ b)[0, 0].item()  # waits for the device
            rates.append(2 * side**3 / (time.perf_counter() - start))
    return float(np.max(rates))
