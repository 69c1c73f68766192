"""ONNX Runtime: on the CPU, or by an execution provider of the GPU package (`onnxruntime:cuda`, `onnxruntime:tensorrt`).

On a GPU an engine has a device: arrays of it are bound by their addresses, outputs stay where ONNX Runtime put them, and its
work is put on the stream of ours without waiting for it.
"""

from __future__ import annotations

import threading
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime

from ..devices.base import CPU, Device
from ..devices.cuda import CudaDevice, cuda_device
from ..devices.cuda_array import CudaArray
from ..errors import BundleError, ConfigError, DeviceError
from . import Arrays
from .onnx_model import OnnxModel

# Convolutions in blocked layout: a sixth to a quarter less time for U-Nets and decoders, a tenth more to load.
_LEVEL = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
PROVIDERS = {
    "": "CPUExecutionProvider",
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}


def backend(variant: str) -> OnnxRuntime:
    """ConfigError for a variant that is no execution provider known here."""
    if variant not in PROVIDERS:
        raise ConfigError(f"backend is 'onnxruntime:{variant[:40]}'; behind the colon may stand {', '.join(filter(None, PROVIDERS))}")
    provider = PROVIDERS[variant]
    return OnnxRuntime(provider, None if provider == PROVIDERS["cpu"] else cuda_device())


@dataclass(frozen=True, slots=True)
class OnnxRuntime:
    """Sessions on one execution provider; what it cannot run, or all where it is not there, runs on the CPU."""

    provider: str
    device: CudaDevice | None = None
    """Where its arrays can stay; None: they are the host's."""

    @property
    def runs_on_caller_thread(self) -> bool:
        """See `Backend.runs_on_caller_thread`."""
        return self.provider == PROVIDERS[""]

    def version(self) -> str:
        """See `Backend.version`; the execution provider is the one that was asked for."""
        return f"onnxruntime {onnxruntime.__version__} {self.provider}"

    def load(self, model: OnnxModel, *, threads: int) -> OnnxRuntimeEngine:
        """See `Backend.load`."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = _LEVEL
        # Each session would keep the most that it ever worked in; the C library shares it among them, and is as fast.
        options.enable_cpu_mem_arena = False
        options.log_severity_level = 3
        # A thread that spins while it waits takes the core from the other engines, and from other processes.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        disabled = []
        if model.data:
            # Weights of gigabytes are mapped, not read, and widened where they are used: half the memory, loaded at once, and
            # slower at small batches. At the highest level their widening would be folded whatever is disabled.
            assert model.path
            options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(model.path.parent))
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
            disabled = ["ConstantFolding"]
        # What TensorRT does not take stays on the GPU.
        names = [self.provider, *([PROVIDERS["cuda"]] if self.provider == PROVIDERS["tensorrt"] else []), PROVIDERS["cpu"]]
        on_gpu = {"user_compute_stream": str(self.device.context.stream)} if self.device else {}
        providers = [(name, {} if name == PROVIDERS["cpu"] else on_gpu) for name in dict.fromkeys(names)]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that a provider is not there is told below
                session = onnxruntime.InferenceSession(model.graph, options, providers=providers, disabled_optimizers=disabled)
        except Exception as error:  # ONNX Runtime's own classes share no public base
            raise BundleError(f"ONNX Runtime cannot load the graph ({str(error)[:300]}); export the bundle again") from error
        return OnnxRuntimeEngine(session, self.provider, self.device)


class OnnxRuntimeEngine:
    """A session, with the names of its inputs and outputs read once."""

    def __init__(self, session: Any, provider: str, device: CudaDevice | None = None) -> None:
        self._session = session
        self._inputs = [each.name for each in session.get_inputs()]
        self._outputs = [each.name for each in session.get_outputs()]
        used = session.get_providers()[0]
        self.fallback = "" if used == provider else f"ONNX Runtime has no usable {provider}, {used} runs instead"
        self.device: Device[Any] = CPU if self.fallback or device is None else device
        self._lock = threading.Lock()

    def run(self, inputs: Arrays) -> dict[str, Any]:
        """See `Engine.run`; arrays of the device are answered by such."""
        try:
            if any(isinstance(values, CudaArray) for values in inputs.values()):
                return self._run_in_place(inputs)
            return dict(zip(self._outputs, self._session.run(self._outputs, dict(inputs)), strict=True))
        except (BundleError, DeviceError):
            raise
        except Exception as error:
            if "allocat" in str(error).lower():
                raise DeviceError(f"out of memory ({str(error)[:200]}); ask for fewer references or set a smaller batch") from error
            raise BundleError(f"ONNX Runtime failed ({str(error)[:300]}); verify or export the bundle again") from error

    def _run_in_place(self, inputs: Arrays) -> dict[str, CudaArray]:
        if set(inputs) != set(self._inputs):
            raise BundleError(f"the graph takes {sorted(self._inputs)}, the inputs are {sorted(inputs)}; export the bundle again")
        assert isinstance(self.device, CudaDevice)  # whose arrays these are
        context = self.device.context
        here = {name: self.device.to_device(values).aligned() for name, values in inputs.items()}
        binding = self._session.io_binding()
        for name, values in here.items():
            binding.bind_input(name, context.kind, 0, values.dtype.type, values.shape, values.address)
        for name in self._outputs:
            binding.bind_output(name, context.kind, 0)
        options = onnxruntime.RunOptions()
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        with self._lock:  # threads have one stream
            self._session.run_with_iobinding(binding, options)
        found = zip(self._outputs, binding.get_outputs(), strict=True)
        return {name: CudaArray(context, value.data_ptr(), value.shape(), np.float32, (value, self._session)) for name, value in found}
