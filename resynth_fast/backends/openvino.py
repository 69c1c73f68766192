"""OpenVINO on the CPU, in float32 or, where the processor has it, bfloat16 (`openvino:bf16`)."""

from __future__ import annotations

import io
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import openvino

from ..devices.base import CPU, Device
from ..errors import BundleError, ConfigError, DeviceError
from ..types import Floats
from . import Arrays
from .onnx_model import OnnxModel

DEVICE = "CPU"
HINTS = {"": "f32", "f32": "f32", "bf16": "bf16"}


def backend(variant: str) -> OpenVino:
    """The backend of a precision; ConfigError for a variant that is not one."""
    if variant not in HINTS:
        raise ConfigError(f"backend is 'openvino:{variant[:40]}'; behind the colon may stand {', '.join(filter(None, HINTS))}")
    return OpenVino(HINTS[variant])


@dataclass(frozen=True, slots=True)
class OpenVino:
    """Models compiled for one precision. Without a hint OpenVINO chooses bfloat16 wherever the processor has it."""

    precision: str
    runs_on_caller_thread = True

    def version(self) -> str:
        """See `Backend.version`; the precision is the requested one."""
        return f"openvino {openvino.__version__.split('-')[0]} {DEVICE} {self.precision}"

    def load(self, model: OnnxModel, *, threads: int) -> OpenVinoEngine:
        """See `Backend.load`; a processor without bfloat16 computes in float32, and `fallback` says so."""
        core = _core()
        lacking = self.precision == "bf16" and "BF16" not in core.get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")
        options = {
            "INFERENCE_PRECISION_HINT": "f32" if lacking else self.precision,
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            # Pinned threads of all engines, and of all processes, would run on the same first cores.
            "ENABLE_CPU_PINNING": False,
        }
        try:
            compiled = core.compile_model(core.read_model(model.path if model.data else io.BytesIO(model.graph)), DEVICE, options)
        except RuntimeError as error:
            raise BundleError(f"OpenVINO cannot load the graph ({_line(error)}); export the bundle again") from error
        return OpenVinoEngine(compiled, "this processor has no bfloat16, OpenVINO computes in float32 instead" if lacking else "")


class OpenVinoEngine:
    """A compiled model. Each thread has an inference request of its own, since requests must not be shared."""

    device: Device[Any] = CPU

    def __init__(self, compiled: Any, fallback: str) -> None:
        self.fallback = fallback
        self._compiled = compiled
        self._inputs = {port.get_any_name() for port in compiled.inputs}
        self._outputs = [port.get_any_name() for port in compiled.outputs]
        self._requests = threading.local()

    def run(self, inputs: Arrays) -> dict[str, Floats]:
        """See `Engine.run`."""
        if self._inputs != set(inputs):
            raise BundleError(f"the graph takes {sorted(self._inputs)}, the inputs are {sorted(inputs)}; export the bundle again")
        if not hasattr(self._requests, "current"):
            self._requests.current = self._compiled.create_infer_request()
        try:
            outputs = self._requests.current.infer(dict(inputs), share_inputs=True, share_outputs=False)
        except RuntimeError as error:
            if "alloc" in str(error).lower():
                raise DeviceError(f"out of memory ({_line(error)}); ask for fewer references or set a smaller batch") from error
            raise BundleError(f"OpenVINO failed ({_line(error)}); verify or export the bundle again") from error
        return {name: np.array(outputs[i]) for i, name in enumerate(self._outputs)}


_cores: list[Any] = []
_lock = threading.Lock()


def _core() -> Any:
    """The process's only core: a second one would hold plugins and threads of its own."""
    with _lock:
        if not _cores:
            _cores.append(openvino.Core())
        return _cores[0]


def _line(error: BaseException) -> str:
    """The informative part of OpenVINO's message: its last line that is not empty."""
    return ([line.strip() for line in str(error).splitlines() if line.strip()] or [""])[-1][:300]
