"""Memory and copies of a CUDA device, with a driver that only records its calls."""

from __future__ import annotations

import ctypes
import threading
from typing import Any

import numpy as np
import pytest

from resynth_fast.devices import cuda_driver
from resynth_fast.errors import DeviceError


class Driver:
    """Gives addresses until `room` bytes are taken."""

    def __init__(self, room: int = 1 << 30) -> None:
        self.room, self.taken, self.calls = room, {}, []  # type: ignore[var-annotated]

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> int:
            self.calls.append(name)
            return 0

        return call

    def cuMemAlloc_v2(self, address: Any, size: Any) -> int:
        self.calls.append("cuMemAlloc_v2")
        if sum(self.taken.values()) + size.value > self.room:
            return 2
        address._obj.value = 4096 * len(self.calls)
        self.taken[address._obj.value] = size.value
        return 0

    def cuMemFree_v2(self, address: Any) -> int:
        del self.taken[address.value]
        return 0


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    made = Driver()
    monkeypatch.setattr(ctypes, "CDLL", lambda name: made)
    return made


def test_freed_memory_is_reused_by_the_next_allocation_of_its_size(driver: Driver) -> None:
    device = cuda_driver.CudaContext()
    first, other = device.allocate(3000), device.allocate(3000)
    assert first != other
    device.free(first)
    assert device.allocate(5000) not in (first, other)  # of another size
    assert device.allocate(2500) == first
    assert driver.calls.count("cuMemAlloc_v2") == 3
    assert sorted(driver.taken.values()) == [4096, 4096, 8192]


def test_cached_memory_is_freed_before_an_allocation_fails(driver: Driver) -> None:
    device = cuda_driver.CudaContext()
    driver.room = 8192
    for address in [device.allocate(1024) for _ in range(8)]:
        device.free(address)
    device.allocate(8000)
    assert list(driver.taken.values()) == [8192]
    with pytest.raises(DeviceError, match="out of GPU memory"):
        device.allocate(1)


def test_an_uploaded_array_may_be_changed_at_once_and_its_copy_lives_until_the_upload_ends(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fake driver looks at the source when the stream is waited for, as late as a real one may."""
    device, sources, read = cuda_driver.CudaContext(), [], []

    def upload(address: Any, source: Any, size: Any, stream: Any) -> int:
        sources.append((source.value, size.value))
        return 0

    def wait(stream: Any) -> int:
        read.extend(ctypes.string_at(*each) for each in sources)
        sources.clear()
        return 0

    monkeypatch.setattr(driver, "cuMemcpyHtoDAsync_v2", upload, raising=False)
    monkeypatch.setattr(driver, "cuStreamSynchronize", wait, raising=False)
    values = [np.random.default_rng(i).random((64, 2)) for i in range(50)]
    wanted = [each.T.tobytes() for each in values]
    for each in values:
        device.upload(4096, each.T)  # not in C order
        each[:] = 0
    device.synchronize()
    assert read == wanted
    assert not device._uploads


def test_threads_never_get_the_same_memory(driver: Driver) -> None:
    device = cuda_driver.CudaContext()
    mine: list[int] = []

    def work() -> None:
        for _ in range(300):
            address = device.allocate(600)
            if address in mine:
                mine.append(-1)
            mine.append(address)
            mine.remove(address)
            device.free(address)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not mine
    assert len(driver.taken) <= 4


def test_the_process_has_one_device(driver: Driver) -> None:
    cuda_driver.context.cache_clear()
    assert cuda_driver.context() is cuda_driver.context()
    cuda_driver.context.cache_clear()
