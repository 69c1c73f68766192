"""PyTorch: the graph as a module, eager or compiled, on the CPU or a GPU (`torch`, `torch:compile`, `torch:cuda,compile,bf16`).

A variant has up to three parts, in any order: a device (`cpu`, `cuda`), `compile`, and a precision (`bf16`, `fp16`). In 16
bits are matrix products, convolutions and their weights. Norms, softmax, reductions, angles and all outputs are float32.
On a GPU, calls are replayed as CUDA graphs. No other folder of the runtime imports torch, and this one only when it is named.
"""

from __future__ import annotations

import functools
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ... import kernels as kernel_extensions
from ...devices.base import CPU, Device
from ...errors import BundleError, ConfigError, DeviceError
from .. import Arrays
from ..onnx_model import OnnxModel
from .device import TorchDevice
from .translation import Input, Translated, translate

DEVICES = ("cpu", "cuda")
NARROW = {"bf16": torch.bfloat16, "fp16": torch.float16}
GRAPHS_KEPT = 8
"""Maximum number of CUDA graphs per engine: each holds its working memory."""

Tensors = tuple[torch.Tensor, ...]


def backend(variant: str) -> Torch:
    """The backend of a variant; ConfigError for an unknown part, two devices or two precisions."""
    parts = [part for part in variant.split(",") if part]
    devices, precisions = [p for p in parts if p in DEVICES], [p for p in parts if p in NARROW]
    others = set(parts) - {*devices, *precisions, "compile"}
    if others or len(devices) > 1 or len(precisions) > 1:
        allowed = f"{' or '.join(DEVICES)}, compile, {' or '.join(NARROW)}"
        raise ConfigError(f"backend is 'torch:{variant[:40]}'; behind the colon may stand {allowed}, separated by commas")
    return Torch(devices[0] if devices else "cpu", "compile" in parts, precisions[0] if precisions else "f32")


@dataclass(frozen=True, slots=True)
class Torch:
    """Modules on one device, in one precision."""

    device: str
    compiled: bool
    precision: str
    kernels: Any = None
    """Kernels to use instead of `_cuda`, for tests. None: `_cuda` on a GPU, and NumPy arrays on the CPU."""

    @property
    def runs_on_caller_thread(self) -> bool:
        """See `Backend.runs_on_caller_thread`: torch has one number of threads for the whole process."""
        return False

    def version(self) -> str:
        """See `Backend.version`; device and precision are the requested ones."""
        return f"torch {torch.__version__} {self.device}{' compiled' if self.compiled else ''} {self.precision}"

    def load(self, model: OnnxModel, *, threads: int) -> TorchEngine:
        """See `Backend.load`. `threads` is set for the whole process, since torch has one number."""
        available = self.device == "cpu" or torch.cuda.is_available()
        torch_device = torch.device(self.device if available else "cpu")
        if threads != torch.get_num_threads():
            torch.set_num_threads(threads)
        with _upload_stream(torch_device):
            translated = translate(model, torch_device, NARROW.get(self.precision))
        module: Callable[..., Tensors] = translated.module
        if self.compiled:
            module = torch.compile(module)
        if torch_device.type == "cuda":
            module = CudaGraphs(module, _captured)
        elif self.compiled:
            module = _Serialised(module)
        fallback = "" if available else "torch finds no CUDA device, the CPU runs instead"
        kernels = self.kernels or (kernel_extensions.cuda() if torch_device.type == "cuda" else None)
        return TorchEngine(module, translated, _device(torch_device, kernels) if kernels else CPU, torch_device, fallback)


class TorchEngine:
    """A module, with the names and shapes of its inputs."""

    def __init__(
        self, module: Callable[..., Tensors], translated: Translated, device: Device[Any], torch_device: torch.device, fallback: str
    ) -> None:
        self._module, self.device, self._torch_device = module, device, torch_device
        self._inputs, self._outputs = translated.inputs, translated.outputs
        self.fallback = fallback

    def run(self, inputs: Arrays) -> dict[str, Any]:
        """See `Engine.run`; tensors give outputs as tensors, which stay on the device."""
        stay = any(isinstance(values, torch.Tensor) for values in inputs.values())
        if set(inputs) != set(self._inputs):
            raise BundleError(f"the graph takes {sorted(self._inputs)}, the inputs are {sorted(inputs)}; export the bundle again")
        for name, expected in self._inputs.items():
            if not expected.fits(inputs[name].shape):
                raise BundleError(
                    f"the graph takes {name} {expected.shape}, the input has shape {inputs[name].shape}; export the bundle again"
                )
        try:
            with torch.no_grad():
                outputs = self._module(*(self._to_tensor(inputs[name], expected) for name, expected in self._inputs.items()))
            return {
                name: values.contiguous() if stay else values.cpu().numpy().copy()
                for name, values in zip(self._outputs, outputs, strict=True)
            }
        except torch.OutOfMemoryError as error:
            raise DeviceError(f"out of GPU memory ({_line(error)}); ask for fewer references or set a smaller batch") from error
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            if "allocat" in str(error).lower():
                raise DeviceError(f"out of memory ({_line(error)}); ask for fewer references or set a smaller batch") from error
            raise BundleError(f"torch failed ({_line(error)}); verify or export the bundle again") from error

    def _to_tensor(self, values: Any, expected: Input) -> torch.Tensor:
        if isinstance(values, torch.Tensor):
            return values
        whole = np.require(values, expected.dtype, ("C", "W"))  # torch warns of memory that is not writable
        return torch.from_numpy(whole).to(self._torch_device)


class _Serialised:
    """Runs one call at a time: the first call of each shape compiles it, which must not happen in two threads at once."""

    def __init__(self, module: Callable[..., Tensors]) -> None:
        self._module, self._lock = module, threading.Lock()

    def __call__(self, *inputs: torch.Tensor) -> Tensors:
        with self._lock:
            return self._module(*inputs)


class CudaGraphs:
    """Records a module's call once per shape of its inputs, and replays it. The least recently used recording is dropped first.

    `capture(module, inputs)` records a call. It returns the outputs, and a function that computes them again from the values
    that are then in the inputs.
    """

    def __init__(
        self, module: Callable[..., Tensors], capture: Callable[[Callable[..., Tensors], Tensors], tuple[Tensors, Callable[[], None]]]
    ) -> None:
        self._module, self._capture = module, capture
        self._recorded: OrderedDict[tuple[torch.Size, ...], tuple[Tensors, Tensors, Callable[[], None]]] = OrderedDict()

    def __call__(self, *inputs: torch.Tensor) -> Tensors:
        key = tuple(tensor.shape for tensor in inputs)
        with _replaying:
            if key not in self._recorded:
                while len(self._recorded) >= GRAPHS_KEPT:
                    self._recorded.popitem(last=False)
                buffers = tuple(tensor.clone() for tensor in inputs)
                self._recorded[key] = (buffers, *self._capture(self._module, buffers))
            self._recorded.move_to_end(key)
            buffers, outputs, replay = self._recorded[key]
            for buffer, tensor in zip(buffers, inputs, strict=True):
                buffer.copy_(tensor)
            replay()
            return tuple(tensor.clone() for tensor in outputs)


@contextmanager
def _upload_stream(device: torch.device) -> Iterator[None]:
    """Uploads weights on a dedicated CUDA stream, overlapping other work; synchronised on exit.

    The weights may get the memory of an evicted engine, so the stream first waits for calls that were enqueued before.
    """
    if device.type != "cuda":
        yield
        return
    if not _loading:
        _loading.append(torch.cuda.Stream())  # type: ignore[no-untyped-call]
    _loading[0].wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(_loading[0]):
        yield
    _loading[0].synchronize()


_loading: list[Any] = []
"""The shared upload stream, so that freed memory can be reused across engines; empty until the first upload."""
_replaying = threading.Lock()
"""All graphs share one memory pool: the outputs of one are copied before another is replayed."""
_pool: list[Any] = []


def _captured(module: Callable[..., Tensors], inputs: Tensors) -> tuple[Tensors, Callable[[], None]]:
    if not _pool:
        _pool.append(torch.cuda.graph_pool_handle())
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):  # compilation, choice of algorithms and libraries' allocations must not be recorded
            module(*inputs)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    # Only this thread is captured: by default another thread that loads an engine meanwhile would end the recording.
    with torch.cuda.graph(graph, pool=_pool[0], capture_error_mode="thread_local"):
        outputs = module(*inputs)
    return outputs, graph.replay


_device = functools.cache(TorchDevice)
"""One `TorchDevice` per torch device, shared by all its engines, so that arrays need not be copied between them."""


def _line(error: BaseException) -> str:
    """The informative part of torch's message: its first line that is not empty."""
    return ([line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__])[0][:300]
