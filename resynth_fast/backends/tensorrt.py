"""TensorRT: plans that `resynth export plans` built ahead of time (`tensorrt:FOLDER`; by default plans in the user's cache).

A plan is found by the SHA-256 of the graph that it was built from, and is valid for one compute capability and one version
of the library. Nothing is built here, and a missing plan is an error: nothing else runs in its place.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np

from .. import files
from ..devices import cuda_driver
from ..devices.base import CPU, Device
from ..devices.cuda import cuda_device
from ..devices.cuda_array import CudaArray
from ..errors import BundleError, DeviceError
from . import Arrays
from .onnx_model import OnnxModel

FLAVOURS = {"tensorrt-rtx": "tensorrt_rtx", "tensorrt": "tensorrt"}


def _libraries() -> dict[str, Any]:
    libraries, reasons = {}, []
    for flavour, module in FLAVOURS.items():
        try:
            libraries[flavour] = importlib.import_module(module)
        except ImportError as error:
            reasons.append(str(error))
    if not libraries:
        raise ImportError("; ".join(reasons))
    return libraries


LIBRARIES = _libraries()


def backend(variant: str) -> TensorRt:
    """Plans of the folder `variant`; DeviceError if there is no GPU."""
    plans = Path(variant) if variant else files.user_cache() / "plans"
    return TensorRt(plans, cuda_driver.context(), LIBRARIES, cuda_device() or CPU)


class TensorRt:
    """A folder of plans and the device that runs them."""

    runs_on_caller_thread = False

    def __init__(self, plans: Path, context: Any, libraries: dict[str, Any], device: Device[Any] = CPU) -> None:
        """Open a folder of plans.

        `libraries` maps a flavour to its module, TensorRT-RTX or TensorRT. `device` holds the engines' arrays: the GPU if the
        package has CUDA kernels, else the CPU.
        """
        self.plans, self.context, self._libraries, self.device = plans, context, libraries, device

    def version(self) -> str:
        """See `Backend.version`."""
        names = " ".join(f"{flavour} {library.__version__}" for flavour, library in self._libraries.items())
        return f"{names} compute capability {self.context.compute_capability}"

    def load(self, model: OnnxModel, *, threads: int) -> TensorRtEngine:
        """See `Backend.load`; DeviceError if no plan was built for this graph, device and library."""
        flavour, plan = self.find(hashlib.sha256(model.graph).hexdigest())
        self.context.enter()
        library = self._libraries[flavour]
        runtime = library.Runtime(library.Logger(library.Logger.ERROR))
        engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise BundleError(f"{flavour} {library.__version__} does not take the plan; build it again with `resynth export plans`")
        return TensorRtEngine(engine, library, self.context, self.device)

    def find(self, component_sha256: str) -> tuple[str, bytes]:
        """Flavour and content of a component's plan; DeviceError if there is none. A plan is skipped if its hash is not its entry's."""
        for side_car in sorted(self.plans.glob("*.json")):
            try:
                entry = json.loads(side_car.read_text())
                key = entry["key"]
                library = self._libraries.get(key["flavour"])
                fits = entry.get("component_sha256") == component_sha256 and key["compute_capability"] == self.context.compute_capability
                if not fits or library is None or key["version"] != library.__version__:
                    continue
                plan = side_car.with_suffix(".plan").read_bytes()
                if hashlib.sha256(plan).hexdigest() == entry["plan_sha256"]:
                    return key["flavour"], plan
            except (OSError, ValueError, KeyError, TypeError):
                pass  # the file is not a plan's entry, or is being written
        versions = " or ".join(f"{flavour} {library.__version__}" for flavour, library in self._libraries.items())
        raise DeviceError(
            f"{self.plans} has no whole plan of component {component_sha256[:12]}… "
            f"for compute capability {self.context.compute_capability} and {versions}; "
            f"build it with `resynth export plans BUNDLE --to {self.plans} --compute-capability {self.context.compute_capability}`"
        )


class TensorRtEngine:
    """A plan in memory, run by one thread at a time. Batches larger than it was built for are run in several calls."""

    fallback = ""

    def __init__(self, engine: Any, library: Any, context: Any, device: Device[Any] = CPU) -> None:
        self._engine, self._cuda, self.device = engine, context, device
        self._execution = engine.create_execution_context()
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        self._inputs = {
            name: np.dtype(library.nptype(engine.get_tensor_dtype(name)))
            for name in names
            if engine.get_tensor_mode(name) == library.TensorIOMode.INPUT
        }
        self._outputs = [name for name in names if name not in self._inputs]
        self._most = min(next(iter(engine.get_tensor_profile_shape(name, 0)[2])) for name in self._inputs)
        self._lock = threading.Lock()

    def run(self, inputs: Arrays) -> dict[str, Any]:
        """See `Engine.run`; arrays on the device give outputs on the device."""
        if set(inputs) != set(self._inputs):
            raise BundleError(f"the plan takes {sorted(self._inputs)}, the inputs are {sorted(inputs)}; export the bundle again")
        rows = {len(values) for values in inputs.values()}
        if len(rows) != 1:
            raise BundleError(f"the inputs have {sorted(rows)} rows; they must agree")
        stay = any(isinstance(values, CudaArray) for values in inputs.values())
        on_device = {name: self._to_device(name, values) for name, values in inputs.items()}
        with self._lock:
            self._cuda.enter()
            starts = range(0, rows.pop(), self._most)
            parts = [self._run({name: values[start : start + self._most] for name, values in on_device.items()}) for start in starts]
        outputs = {
            name: parts[0][name] if len(parts) == 1 else CudaArray.concatenate([part[name] for part in parts]) for name in self._outputs
        }
        return outputs if stay else {name: values.to_host() for name, values in outputs.items()}

    def _to_device(self, name: str, values: Any) -> CudaArray:
        dtype = self._inputs[name]
        if not isinstance(values, CudaArray):
            return CudaArray.of(self._cuda, np.asarray(values, dtype))
        if values.dtype != dtype:
            raise BundleError(f"the plan takes {name} as {dtype}, the input is {values.dtype}; export the bundle again")
        return values

    def _run(self, inputs: dict[str, CudaArray]) -> dict[str, CudaArray]:
        for name, values in inputs.items():
            if not self._execution.set_input_shape(name, values.shape):
                raise BundleError(f"the plan does not take {name} of shape {values.shape}; export the bundle again")
        outputs = {name: CudaArray.empty(self._cuda, self._execution.get_tensor_shape(name), np.float32) for name in self._outputs}
        bound = {name: values.aligned() for name, values in inputs.items()} | outputs
        for name, values in bound.items():
            self._execution.set_tensor_address(name, values.address)
        if not self._execution.execute_async_v3(self._cuda.stream):
            raise BundleError("TensorRT failed to run the plan; build it again with `resynth export plans`")
        return outputs
