"""G7: features do not depend on the batch size; noise and steps on the device have the host's bits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from timing import Row, measured

from gpu.peers import by_us
from gpu.setting import SD15, SDXL, Setting
from resynth_fast import zoo
from resynth_fast.candidates.engine import EngineCandidate
from resynth_fast.devices.base import CPU, Device
from resynth_fast.extractors.space import open_space
from resynth_fast.kernels.noise import normal_rows
from resynth_fast.kernels.step import INPUT_SCALE, OUTPUTS, SAMPLES, WIDTH

DRIFT = 2e-3  # largest allowed 1 - cosine between the features of one picture in two batches


def invariance(s: Setting) -> Iterator[Row]:
    """Compare batches of 1 to 16. SystemExit where they differ."""
    space = open_space(zoo.bundle(zoo.TEXTURE))
    for name in (SDXL, SD15):
        _, bundle = s.shaped(name)
        pool = s.pool(s.ours(name))
        candidate = EngineCandidate(bundle, pool)
        device = pool.get(bundle.components["denoiser"]).device
        seeds = list(range(16))
        noise = device.to_host(device.normal_rows(seeds, seeds, bundle.latents))
        if noise.tobytes() != normal_rows(seeds, seeds, bundle.latents).tobytes():
            raise SystemExit(f"{name}: noise on the device differs from the host's; they must be equal bit for bit")
        _step_bits(device, noise)
        alone = _unit(space([by_us(candidate, pool, [seed])[0] for seed in seeds]))
        drift = 0.0
        for batch in (2, 3, 8, 16):
            together = _unit(space(by_us(candidate, pool, seeds[:batch])))
            cosines = together @ alone.T
            if cosines.argmax(1).tolist() != seeds[:batch]:
                raise SystemExit(f"{name}: in a batch of {batch} a picture is nearer to another picture than to itself generated alone")
            drift = max(drift, float(1 - cosines.diagonal().min()))
        if not drift <= DRIFT:
            raise SystemExit(f"{name}: cosine drifts by {drift:.1e} between batches, allowed is {DRIFT:.0e}")
        yield measured(
            "gpu invariance",
            f"{name}, batches 1 to 16; noise and steps bit for bit",
            ours=max(drift, 1e-6),
            peer=DRIFT,
            peer_name="allowance",
            goal=1.0,
            unit="of the cosine",
            device=s.label,
        )


def _step_bits(device: Device[Any], noise: npt.NDArray[np.float32]) -> None:
    """SystemExit unless the step kernel gives the host's bits on `device`."""
    weights = np.zeros((len(noise), WIDTH), np.float32)
    weights[:, [SAMPLES.start, OUTPUTS.start, INPUT_SCALE]] = 0.7, -1.3, 1.0
    results = []
    for target in (CPU, device):
        sample, output = target.to_device(noise), target.to_device(noise[::-1].copy())
        out = target.empty_like(sample)
        target.step(target.to_device(weights), [sample], [output], out=out)
        results.append(target.to_host(out).tobytes())
    if results[0] != results[1]:
        raise SystemExit("a step on the device differs from a step on the host; they must be equal bit for bit")


def _unit(features: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The rows scaled to length 1."""
    rows: npt.NDArray[Any] = features / np.linalg.norm(features, axis=1, keepdims=True)
    return rows
