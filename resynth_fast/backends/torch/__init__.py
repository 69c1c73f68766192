"""PyTorch: the graph as a module, run as it is or compiled, on the CPU or a GPU (`torch`, `torch:compile`, `torch:cuda,compile,bf16`).

Words behind the colon, in any order: a device (`cpu`, `cuda`), `compile`, and a precision (`bf16`, `fp16`). In 16 bits are
matrix products, convolutions and their weights; norms, softmax, reductions and angles are float32, as every output is.
On a GPU the calls are CUDA graphs. The only files of the runtime that import torch, when this backend is asked for.
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
"""CUDA graphs of one engine: each holds what it works in."""

Tensors = tuple[torch.Tensor, ...]


def backend(variant: str) -> Torch:
    """ConfigError for a variant of other words than those, or of two devices or precisions."""
    words = [word for word in variant.split(",") if word]
    devices, precisions = [w for w in words if w in DEVICES], [w for w in words if w in NARROW]
    others = set(words) - {*devices, *precisions, "compile"}
    if others or len(devices) > 1 or len(precisions) > 1:
        allowed = f"{' or '.join(DEVICES)}, compile, {' or '.join(NARROW)}"
        raise ConfigError(f"backend is 'torch:{variant[:40]}'; behind the colon may stand {allowed}, separated by commas")
    return Torch(devices[0] if devices else "cpu", "compile" in words, precisions[0] if precisions else "f32")


@dataclass(frozen=True, slots=True)
class Torch:
    """Modules on one device, in one precision."""

    device: str
    compiled: bool
    precision: str
    kernels: Any = None
    """Those of `_cuda`, or what stands in for them; None: `_cuda` on a GPU, and on the CPU arrays are NumPy's."""

    @property
    def runs_on_caller_thread(self) -> bool:
        """See `Backend.runs_on_caller_thread`: torch has one number of threads for the process."""
        return False

    def version(self) -> str:
        """See `Backend.version`; device and precision are those that were asked for."""
        return f"torch {torch.__version__} {self.device}{' compiled' if self.compiled else ''} {self.precision}"

    def load(self, model: OnnxModel, *, threads: int) -> TorchEngine:
        """See `Backend.load`. The number of threads is the whole process's: torch has one."""
        there = self.device == "cpu" or torch.cuda.is_available()
        torch_device = torch.device(self.device if there else "cpu")
        if threads != torch.get_num_threads():
            torch.set_num_threads(threads)
        with _aside(torch_device):
            translated = translate(model, torch_device, NARROW.get(self.precision))
        module: Callable[..., Tensors] = translated.module
        if self.compiled:
            module = torch.compile(module)
        if torch_device.type == "cuda":
            module = CudaGraphs(module, _captured)
        elif self.compiled:
            module = _OneAtATime(module)
        fallback = "" if there else "torch finds no CUDA device, the CPU runs instead"
        kernels = self.kernels or (kernel_extensions.cuda() if torch_device.type == "cuda" else None)
        return TorchEngine(module, translated, _device(torch_device, kernels) if kernels else CPU, torch_device, fallback)


class TorchEngine:
    """A module with the names and shapes that it takes."""

    def __init__(
        self, module: Callable[..., Tensors], translated: Translated, device: Device[Any], torch_device: torch.device, fallback: str
    ) -> None:
        self._module, self.device, self._torch_device = module, device, torch_device
        self._inputs, self._outputs = translated.inputs, translated.outputs
        self.fallback = fallback

    def run(self, inputs: Arrays) -> dict[str, Any]:
        """See `Engine.run`; tensors are answered by tensors, which stay on the device."""
        stay = any(isinstance(values, torch.Tensor) for values in inputs.values())
        if set(inputs) != set(self._inputs):
            raise BundleError(f"the graph takes {sorted(self._inputs)}, the inputs are {sorted(inputs)}; export the bundle again")
        for name, taken in self._inputs.items():
            if not taken.fits(inputs[name].shape):
                raise BundleError(
                    f"the graph takes {name} {taken.shape}, the input has shape {inputs[name].shape}; export the bundle again"
                )
        try:
            with torch.no_grad():
                found = self._module(*(self._here(inputs[name], taken) for name, taken in self._inputs.items()))
            return {
                name: values.contiguous() if stay else values.cpu().numpy().copy()
                for name, values in zip(self._outputs, found, strict=True)
            }
        except torch.OutOfMemoryError as error:
            raise DeviceError(f"out of GPU memory ({_line(error)}); ask for fewer references or set a smaller batch") from error
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            if "allocat" in str(error).lower():
                raise DeviceError(f"out of memory ({_line(error)}); ask for fewer references or set a smaller batch") from error
            raise BundleError(f"torch failed ({_line(error)}); verify or export the bundle again") from error

    def _here(self, values: Any, taken: Input) -> torch.Tensor:
        if isinstance(values, torch.Tensor):
            return values
        whole = np.require(values, taken.dtype, ("C", "W"))  # torch would complain of memory that may not be written
        return torch.from_numpy(whole).to(self._torch_device)


class _OneAtATime:
    """Compiled code is made in the first call of each shape, by one thread while the others wait."""

    def __init__(self, module: Callable[..., Tensors]) -> None:
        self._module, self._lock = module, threading.Lock()

    def __call__(self, *inputs: torch.Tensor) -> Tensors:
        with self._lock:
            return self._module(*inputs)


class CudaGraphs:
    """A module's calls recorded once for each shape of its inputs and played back; of the recordings the longest unused goes first.

    `capture(module, inputs)` records a call: it gives the outputs, and what computes them again from what then stands in the inputs.
    """

    def __init__(
        self, module: Callable[..., Tensors], capture: Callable[[Callable[..., Tensors], Tensors], tuple[Tensors, Callable[[], None]]]
    ) -> None:
        self._module, self._capture = module, capture
        self._kept: OrderedDict[tuple[torch.Size, ...], tuple[Tensors, Tensors, Callable[[], None]]] = OrderedDict()

    def __call__(self, *inputs: torch.Tensor) -> Tensors:
        key = tuple(each.shape for each in inputs)
        with _playing:
            if key not in self._kept:
                while len(self._kept) >= GRAPHS_KEPT:
                    self._kept.popitem(last=False)
                own = tuple(each.clone() for each in inputs)
                self._kept[key] = (own, *self._capture(self._module, own))
            self._kept.move_to_end(key)
            own, outputs, replay = self._kept[key]
            for mine, given in zip(own, inputs, strict=True):
                mine.copy_(given)
            replay()
            return tuple(each.clone() for each in outputs)


@contextmanager
def _aside(device: torch.device) -> Iterator[None]:
    """While open, weights come to a GPU on a stream of their own, beside what others compute, and are there when it closes.

    They may get the memory of an engine that has gone, so they wait for the calls that were under way when it opened.
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
"""One stream for all, once there is any: what one engine leaves is what another may take."""
_playing = threading.Lock()
"""All graphs work in one pool of memory: the outputs of one are copied before another is played."""
_pool: list[Any] = []


def _captured(module: Callable[..., Tensors], inputs: Tensors) -> tuple[Tensors, Callable[[], None]]:
    if not _pool:
        _pool.append(torch.cuda.graph_pool_handle())
    aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(2):  # compilation, choice of algorithms, libraries' own memory: none of it may be recorded
            module(*inputs)
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    # Of this thread alone: another may be loading an engine meanwhile, and by default that would end the recording.
    with torch.cuda.graph(graph, pool=_pool[0], capture_error_mode="thread_local"):
        outputs = module(*inputs)
    return outputs, graph.replay


_device = functools.cache(TorchDevice)
"""One a device, for all its engines: what is at the place of one is at that of the others."""


def _line(error: BaseException) -> str:
    """The part of torch's message that says something: the first line that is not empty."""
    return ([line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__])[0][:300]
