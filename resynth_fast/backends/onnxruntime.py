"""ONNX Runtime: on the CPU, or by an execution provider of the GPU package (`onnxruntime:cuda`, `onnxruntime:tensorrt`)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime

from ..errors import BundleError, ConfigError, DeviceError
from ..model import Model
from . import Arrays

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
    return OnnxRuntime(PROVIDERS[variant])


@dataclass(frozen=True, slots=True)
class OnnxRuntime:
    """Sessions on one execution provider; what it cannot run, or all where it is not there, runs on the CPU."""

    provider: str

    @property
    def abreast(self) -> bool:
        """See `Backend.abreast`."""
        return self.provider == PROVIDERS[""]

    def version(self) -> str:
        """See `Backend.version`; the execution provider is the one that was asked for."""
        return f"onnxruntime {onnxruntime.__version__} {self.provider}"

    def load(self, model: Model, *, threads: int) -> OnnxRuntimeEngine:
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
        providers = list(dict.fromkeys([self.provider, PROVIDERS[""]]))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that a provider is not there is told below
                session = onnxruntime.InferenceSession(model.graph, options, providers=providers, disabled_optimizers=disabled)
        except Exception as error:  # ONNX Runtime's own classes share no public base
            raise BundleError(f"ONNX Runtime cannot load the graph ({str(error)[:300]}); export the bundle again") from error
        return OnnxRuntimeEngine(session, self.provider)


class OnnxRuntimeEngine:
    """A session, with the names of its outputs read once."""

    def __init__(self, session: Any, provider: str) -> None:
        self._session = session
        self._outputs = [output.name for output in session.get_outputs()]
        used = session.get_providers()[0]
        self.fallback = "" if used == provider else f"ONNX Runtime has no usable {provider}, {used} runs instead"

    def run(self, inputs: Arrays) -> dict[str, npt.NDArray[np.float32]]:
        """See `Engine.run`."""
        try:
            return dict(zip(self._outputs, self._session.run(self._outputs, dict(inputs)), strict=True))
        except Exception as error:
            if "allocat" in str(error).lower():
                raise DeviceError(f"out of memory ({str(error)[:200]}); ask for fewer references or set a smaller batch") from error
            raise BundleError(f"ONNX Runtime failed ({str(error)[:300]}); verify or export the bundle again") from error
