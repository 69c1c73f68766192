"""Settings of the whole suite."""

import ctypes
import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from emulation import HERE, Emulation, compile_emulation
from hypothesis import settings
from loopback import Server
from network_guard import sitecustomize  # noqa: F401 - refuses every address but this machine's
from stand_in import StandIn

from resynth_fast import kernels

# Fixtures that several files share.
pytest_plugins = ["galleries", "gaussian_pictures", "synthetic_pictures", "zoo_pictures"]

# Timings of shared machines are noise, and a suite that gates a merge must not depend on luck.
settings.register_profile("resynth", deadline=None, derandomize=True)
settings.load_profile("resynth")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what runs emulated kernels, and skip what is marked `gpu` where there is no CUDA module or no device, saying which."""
    for item in items:
        if "emulated_cuda" in getattr(item, "fixturenames", ()):
            item.add_marker("emulated")
    if (reason := _why_no_gpu()) is None:
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason=reason))


def _why_no_gpu() -> str | None:
    if (cuda := kernels.cuda()) is None:
        return "resynth_fast was built without CUDA"
    return None if cuda.device_count() else f"no CUDA device: {cuda.status()}"


@pytest.fixture(scope="module", params=[*(kernels.native.supported_isas() if kernels.compiled() else []), "reference"])
def every_isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run each test with every instruction set forced, and as without the extension."""
    native, before = kernels.native, kernels.isa()
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "reference":
            patch.setattr(kernels, "native", None)
        else:
            native.force_isa(request.param)
        yield request.param
    if native:
        native.force_isa(before)


@pytest.fixture(scope="session")
def emulated_cuda(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Emulation]:
    """The kernels of tests/cuda_emulation/<name>.cpp; tests that use this are marked `emulated`, and checked for races."""
    folder = tmp_path_factory.mktemp("emulation")
    return functools.cache(lambda name: Emulation(compile_emulation(HERE / f"{name}.cpp", folder)))


@pytest.fixture
def server() -> Iterator[Server]:
    """A loopback server for one test, which sets its answers."""
    with Server() as server:
        yield server


class HostDevice:
    """A device whose memory is the host's, under its own addresses; freed memory is overwritten with NaN."""

    kind, dlpack, stream, compute_capability = "cpu", (1, 0), 7, "8.9"

    def __init__(self) -> None:
        self.memory: dict[int, Any] = {}
        self.freed: list[Any] = []
        self.waited = 0
        self.copied: list[tuple[str, Any]] = []

    @property
    def kernels(self) -> Any:
        """See `StandIn`."""
        return StandIn(self.stream)

    def enter(self) -> None: ...

    def synchronize(self) -> None:
        self.waited += 1

    def allocate(self, size_bytes: int) -> int:
        buffer = np.full(size_bytes + 256, 0xFF, np.uint8)
        address = -(-buffer.ctypes.data // 256) * 256
        self.memory[address] = buffer
        return address

    def free(self, address: int) -> None:
        buffer = self.memory.pop(address)
        buffer[:] = 0xFF
        self.freed.append(buffer)  # keeps the address from being used again

    def upload(self, address: int, values: Any) -> None:
        self.copied.append(("up", values.dtype))
        ctypes.memmove(address, np.ascontiguousarray(values).ctypes.data, values.nbytes)

    def download(self, address: int, shape: tuple[int, ...], dtype: Any) -> Any:
        self.copied.append(("down", dtype))
        values = np.empty(shape, dtype)
        ctypes.memmove(values.ctypes.data, address, values.nbytes)
        return values

    def copy(self, address: int, source: int, size_bytes: int) -> None:
        ctypes.memmove(address, source, size_bytes)

    def fill(self, address: int, word: int, count: int) -> None:
        values = np.full(count, word, np.uint32)
        ctypes.memmove(address, values.ctypes.data, values.nbytes)


@pytest.fixture
def host_device() -> HostDevice:
    """A device without a GPU."""
    return HostDevice()
