"""The step kernel against the same update in NumPy and torch."""

# First, because it fixes the number of threads, which NumPy reads when it is imported.
from timing import Row, compare, processor, run

# isort: split
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np

from resynth_fast.kernels import isa
from resynth_fast.kernels.step import GUIDANCE, INPUT_SCALE, OUTPUTS, SAMPLES, WIDTH, step
from resynth_fast.types import Floats

SCALE = 1.0  # guidance scale; with 1, repeated calls leave the guided output that they overwrite unchanged
SHAPES = ((1, 4, 64, 64), (16, 4, 128, 128))  # one picture of 512 px; 16 of 1024 px, an autoencoder of factor 8


@dataclass(frozen=True)
class Update:
    """A sampler's update: its weights of samples and of outputs, the newest first, and the scale of the next model input."""

    name: str
    samples: tuple[float, ...]
    outputs: tuple[float, ...]
    input_scale: float | None

    def arrays_moved(self) -> int:
        """Transfers of a whole array between memory and core. An array that is written without being read is fetched first."""
        read = len(self.samples) + len(self.outputs) + 1  # guidance has two outputs
        written_over = 1 + (len(self.outputs) > 1)  # the sample, and the guided output for the next call
        return read + written_over + 2 * (self.input_scale is not None)


UPDATES = (
    Update("guidance + Euler", (1.0,), (-0.3,), None),
    Update("guidance + Euler, scaled input", (1.0,), (-0.3,), 0.7),
    Update("guidance + DPM++ 2M", (0.8,), (-0.3, 0.1), None),
)


def main() -> None:
    """Time the updates of the commonest samplers under guidance."""
    run(
        cpu=lambda: [row for shape in SHAPES for update in UPDATES for row in on_cpu(shape, update)],
        gpu=lambda: [row for shape in SHAPES for update in UPDATES for row in on_gpu(shape, update)],
    )


def on_cpu(shape: tuple[int, ...], update: Update) -> list[Row]:
    """Time the compiled kernel. SystemExit if the package was built without it."""
    if isa() == "reference":
        raise SystemExit("resynth_fast was built without its extension: nothing to measure")
    arrays = problem(shape, update)
    weights = weights_of(shape[0], update)
    x, u, m, *older = (array.copy() for array in arrays)
    guided = m if older else None
    scaled = np.empty_like(x) if update.input_scale else None
    first = x.copy()

    def ours() -> Floats:
        step(weights, [x], [m, *older], unconditional=u, out=x, guided=guided, scaled=scaled)
        return x

    peers: dict[str, Callable[[], Floats]] = {
        "numpy": in_numpy(update, *arrays),
        "numpy, no temporaries": in_numpy_over_buffers(update, *arrays),
    }
    if find_spec("torch"):
        peers["torch"] = in_torch(update, *arrays)
    step(weights, [first], [m, *older], unconditional=u, out=first)
    for peer in peers.values():
        np.testing.assert_allclose(peer(), first, rtol=1e-5, atol=1e-5)
    # An addition in place moves as many bytes: two transfers in, one out. Ones, because untouched zeros would share one page.
    a, b = (np.ones(round(x.size * update.arrays_moved() / 3), np.float32) for _ in range(2))
    return compare(
        "step",
        f"{'x'.join(map(str, shape))} {update.name}",
        ours,
        peers,
        verify=lambda _, __: None,  # every call is one more step; the results were compared above
        goals={"numpy": 3.0},
        limit=lambda: np.add(a, b, out=a),
        device=f"{processor()}, {isa()}",
    )


def on_gpu(shape: tuple[int, ...], update: Update) -> list[Row]:
    """Compare with torch on the same device."""
    import torch

    from resynth_fast.kernels import _cuda

    arrays = [torch.from_numpy(array).cuda() for array in problem(shape, update)]
    weights = torch.from_numpy(weights_of(shape[0], update)).cuda()
    x, u, m, *older = (array.clone() for array in arrays)
    guided = m if older else None
    scaled = torch.empty_like(x) if update.input_scale else None
    stream = torch.cuda.current_stream().cuda_stream

    def ours() -> torch.Tensor:
        _cuda.step(weights, [x], [m, *older], u, None, x, guided, scaled, stream)
        return x

    a, b = (torch.ones(round(x.numel() * update.arrays_moved() / 3), device="cuda") for _ in range(2))
    return compare(
        "step-cuda",
        f"{'x'.join(map(str, shape))} {update.name}",
        ours,
        {"torch": torch_step(update, *arrays)},
        verify=lambda ours, theirs: torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5),
        goals={"torch": 1.0},
        limit=lambda: a.add_(b),
        device=torch.cuda.get_device_name(),
        finish=torch.cuda.synchronize,
    )


def problem(shape: tuple[int, ...], update: Update) -> list[Floats]:
    """Sample, unconditional output, conditional output, older outputs."""
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape, dtype=np.float32) for _ in range(2 + len(update.outputs))]


def weights_of(rows: int, update: Update) -> Floats:
    weights = np.zeros((rows, WIDTH), np.float32)
    weights[:, SAMPLES][:, : len(update.samples)] = update.samples
    weights[:, OUTPUTS][:, : len(update.outputs)] = update.outputs
    weights[:, GUIDANCE], weights[:, INPUT_SCALE] = SCALE, update.input_scale or 1.0
    return weights


def in_numpy(update: Update, x: Floats, u: Floats, c: Floats, *older: Floats) -> Callable[[], Floats]:
    """The formula in NumPy, with temporary arrays."""
    a, b, g = np.float32(update.samples[0]), [np.float32(weight) for weight in update.outputs], np.float32(SCALE)

    def run() -> Floats:
        m: Floats = u + g * (c - u)
        new: Floats = a * x + b[0] * m
        for weight, output in zip(b[1:], older, strict=True):
            new += weight * output
        if update.input_scale:
            _ = np.float32(update.input_scale) * new
        return new

    return run


def in_numpy_over_buffers(update: Update, x: Floats, u: Floats, c: Floats, *older: Floats) -> Callable[[], Floats]:
    """The formula in preallocated arrays, NumPy's fastest form."""
    a, b, g = np.float32(update.samples[0]), [np.float32(weight) for weight in update.outputs], np.float32(SCALE)
    m, new, term = (np.empty_like(x) for _ in range(3))

    def run() -> Floats:
        np.subtract(c, u, out=m)
        np.multiply(m, g, out=m)
        np.add(m, u, out=m)
        np.multiply(x, a, out=new)
        np.multiply(m, b[0], out=term)
        np.add(new, term, out=new)
        for weight, output in zip(b[1:], older, strict=True):
            np.multiply(output, weight, out=term)
            np.add(new, term, out=new)
        if update.input_scale:
            np.multiply(new, np.float32(update.input_scale), out=term)
        return new

    return run


def in_torch(update: Update, *arrays: Floats) -> Callable[[], Floats]:
    import torch

    torch.set_num_threads(1)
    run = torch_step(update, *map(torch.from_numpy, arrays))

    def as_numpy() -> Floats:
        values: Floats = run().numpy()
        return values

    return as_numpy


def torch_step(update: Update, x: Any, u: Any, c: Any, *older: Any) -> Callable[[], Any]:
    """The update by torch's fused operations: lerp for the guidance, add with a factor for each term."""
    import torch

    m, new, scaled = (torch.empty_like(x) for _ in range(3))

    def run() -> Any:
        torch.lerp(u, c, SCALE, out=m)
        torch.mul(x, update.samples[0], out=new)
        new.add_(m, alpha=update.outputs[0])
        for weight, output in zip(update.outputs[1:], older, strict=True):
            new.add_(output, alpha=weight)
        if update.input_scale:
            torch.mul(new, update.input_scale, out=scaled)
        return new

    return run


if __name__ == "__main__":
    main()
