"""OpenVINO on the CPU, in float32 or, where the processor has it, bfloat16 (`openvino:bf16`)."""

from __future__ import annotations

import io
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import openvino

from ..devices.base import CPU, Device
from ..errors import BundleError, ConfigError, DeviceError
from . import Arrays
from .onnx_model import OnnxModel

DEVICE = "CPU"
HINTS = {"": "f32", "f32": "f32", "bf16": "bf16"}


def backend(variant: str) -> OpenVino:
    """ConfigError for a variant that is no precision known here."""
    if variant not in HINTS:
        raise ConfigError(f"backend is 'openvino:{variant[:40]}'; behind the colon may stand {', '.join(filter(None, HINTS))}")
    return OpenVino(HINTS[variant])


@dataclass(frozen=True, slots=True)
class OpenVino:
    """Models compiled for one precision. Left to itself, OpenVINO would choose bfloat16 wherever the processor has it."""

    precision: str
    runs_on_caller_thread = True

    def version(self) -> str:
        """See `Backend.version`; the precision is the one that was asked for."""
        return f"openvino {openvino.__version__.split('-')[0]} {DEVICE} {self.precision}"

    def load(self, model: OnnxModel, *, threads: int) -> OpenVinoEngine:
        """See `Backend.load`; a processor without bfloat16 computes in float32, which `fallback` tells."""
        core = _core()
        lacking = self.precision == "bf16" and "BF16" not in core.get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")
        options = {
            "INFERENCE_PRECISION_HINT": "f32" if lacking else self.precision,
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            # Pinned, the engines of one process, and of two processes, would all sit on the first cores.
            "ENABLE_CPU_PINNING": False,
        }
        try:
            compiled = core.compile_model(core.read_model(model.path if model.data else io.BytesIO(model.graph)), DEVICE, options)
        except RuntimeError as error:
            raise BundleError(f"OpenVINO cannot load the graph ({_line(error)}); export the bundle again") from error
        return OpenVinoEngine(compiled, "this processor has no bfloat16, OpenVINO computes in float32 instead" if lacking else "")


class OpenVinoEngine:
    """A compiled model; each thread has its own request, which must not be shared."""

    device: Device[Any] = CPU

    def __init__(self, compiled: Any, fallback: str) -> None:
        self.fallback = fallback
        self._compiled = compiled
        self._inputs = {port.get_any_name() for port in compiled.inputs}
        self._outputs = [port.get_any_name() for port in compiled.outputs]
        self._own = threading.local()

    def run(self, inputs: Arrays) -> dict[str, npt.NDArray[np.float32]]:
        """See `Engine.run`."""
        if self._inputs != set(inputs):
            raise BundleError(f"the graph takes {sorted(self._inputs)}, the inputs are {sorted(inputs)}; export the bundle again")
        if not hasattr(self._own, "request"):
            self._own.request = self._compiled.create_infer_request()
        try:
            found = self._own.request.infer(dict(inputs), share_inputs=True, share_outputs=False)
        except RuntimeError as error:
            if "alloc" in str(error).lower():
                raise DeviceError(f"out of memory ({_line(error)}); ask for fewer references or set a smaller batch") from error
            raise BundleError(f"OpenVINO failed ({_line(error)}); verify or export the bundle again") from error
        return {name: np.array(found[i]) for i, name in enumerate(self._outputs)}


_cores: list[Any] = []
_lock = threading.Lock()


def _core() -> Any:
    """One for the process: a second would hold its own plugins and threads."""
    with _lock:
        if not _cores:
            _cores.append(openvino.Core())
        return _cores[0]


def _line(error: BaseException) -> str:
    """The part of OpenVINO's message that says something: the last line that is not empty."""
    return ([line.strip() for line in str(error).splitlines() if line.strip()] or [""])[-1][:300]
