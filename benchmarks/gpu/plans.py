"""G8: TensorRT's plans, built and loaded."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Iterator

import numpy as np
import torch
from timing import Row, interleave, measured

from gpu.setting import SD15, SDXL, Setting
from resynth_fast.errors import ResynthError


def plans(s: Setting) -> Iterator[Row]:
    """Time to load a plan against a pinned copy of as many bytes; the case tells the seconds to build it."""
    try:
        from resynth_fast.backends.tensorrt import FLAVOURS, LIBRARIES
        from resynth_fast.export import tensorrt
    except ImportError as error:
        print(f"skipped: plans need TensorRT ({error})", file=sys.stderr)
        return
    if s.tiny:
        print("skipped: plans need a GPU", file=sys.stderr)
        return
    flavour = next(name for name in FLAVOURS if name in LIBRARIES)
    capability = ".".join(map(str, torch.cuda.get_device_capability()))
    for name in (SDXL, SD15):
        for part, component in s.shaped(name)[1].components.items():
            start = time.perf_counter()
            try:
                path = tensorrt.plan(s.plans, component, tensorrt.key_of(component, compute_capability=capability, flavour=flavour))
                built = time.perf_counter()
                s.pool(f"tensorrt:{s.plans}").get(component)
            except ResynthError as error:
                print(f"skipped: {name} {part}: {error}", file=sys.stderr)
                continue
            loaded = time.perf_counter()
            pinned = torch.empty(path.stat().st_size, dtype=torch.uint8, pin_memory=True)
            copies = interleave({"": functools.partial(pinned.to, s.device)}, s.finish, rounds=3)[""]
            yield measured(
                "gpu plans",
                f"{name} {part}, load (built in {built - start:.0f} s)",
                ours=1e6 * (loaded - built),
                peer=float(np.median(copies)),
                peer_name="pinned copy",
                goal=0.5,
                device=s.label,
            )
