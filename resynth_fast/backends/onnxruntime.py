"""ONNX Runtime: on the CPU, or by an execution provider of the GPU package (`onnxruntime:cuda`, `onnxruntime:tensorrt`).

On a GPU, input arrays are bound by their addresses, outputs stay in the memory that ONNX Runtime allocates, and its work is
enqueued on our stream without waiting for it.
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

# Convolutions run in blocked layout: U-Nets and decoders take a sixth to a quarter less time, loading a tenth more.
_LEVEL = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
PROVIDERS = {
    "": "CPUExecutionProvider",
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}


def backend(variant: str) -> OnnxRuntime:
    """The backend of an execution provider; ConfigError for a variant that names none."""
    if variant not in PROVIDERS:
        raise ConfigError(f"backend is 'onnxruntime:{variant[:40]}'; behind the colon may stand {', '.join(filter(None, PROVIDERS))}")
    provider = PROVIDERS[variant]
    return OnnxRuntime(provider, None if provider == PROVIDERS["cpu"] else cuda_device())


@dataclass(frozen=True, slots=True)
class OnnxRuntime:
    """Sessions on one execution provider. Nodes that it cannot run, or all if it is not available, run on the CPU."""

    provider: str
    device: CudaDevice | None = None
    """Device that arrays can stay on; None for arrays on the host."""

    @property
    def runs_on_caller_thread(self) -> bool:
        """See `Backend.runs_on_caller_thread`."""
        return self.provider == PROVIDERS[""]

    def version(self) -> str:
        """See `Backend.version`; the execution provider is the requested one."""
        return f"onnxruntime {onnxruntime.__version__} {self.provider}"

    def load(self, model: OnnxModel, *, threads: int) -> OnnxRuntimeEngine:
        """See `Backend.load`."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = _LEVEL
        # With its own arena each session keeps the most memory that it ever used. The C library shares it, and is as fast.
        options.enable_cpu_mem_arena = False
        options.log_severity_level = 3
        # A thread that spins while it waits takes its core from other engines and other processes.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        disabled = []
        if model.data:
            # Weights of gigabytes are mapped, not read, and widened where they are used: half the memory, loaded instantly, but
            # slower at small batches. At the highest level their widening would be folded whatever is disabled.
            assert model.path
            options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(model.path.parent))
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
            disabled = ["ConstantFolding"]
        # Nodes that TensorRT does not take stay on the GPU.
        names = [self.provider, *([PROVIDERS["cuda"]] if self.provider == PROVIDERS["tensorrt"] else []), PROVIDERS["cpu"]]
        on_gpu = {"user_compute_stream": str(self.device.context.stream)} if self.device else {}
        providers = [(name, {} if name == PROVIDERS["cpu"] else on_gpu) for name in dict.fromkeys(names)]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the engine's `fallback` tells of a missing provider
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
        """See `Engine.run`; arrays on the device give outputs on the device."""
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
        assert isinstance(self.device, CudaDevice)  # the inputs are its arrays
        context = self.device.context
        on_device = {name: self.device.to_device(values).aligned() for name, values in inputs.items()}
        binding = self._session.io_binding()
        for name, values in on_device.items():
            binding.bind_input(name, context.kind, 0, values.dtype.type, values.shape, values.address)
        for name in self._outputs:
            binding.bind_output(name, context.kind, 0)
        options = onnxruntime.RunOptions()
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        with self._lock:  # all threads share one stream
            self._session.run_with_iobinding(binding, options)
        outputs = zip(self._outputs, binding.get_outputs(), strict=True)
        return {name: CudaArray(context, value.data_ptr(), value.shape(), np.float32, (value, self._session)) for name, value in outputs}
