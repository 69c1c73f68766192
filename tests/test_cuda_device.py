"""Arrays of a device without torch: bound by address, freed after their last use, with the same pictures to the bit.

Memory of the host and the kernels of the processor stand in for a device's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("resynth_fast.kernels._native")
pytest.importorskip("onnxruntime")

from resynth_fast import Attributor, backends, kernels, zoo
from resynth_fast.backends.onnxruntime import PROVIDERS, OnnxRuntime
from resynth_fast.bundle import Guidance
from resynth_fast.candidates.engine import EngineCandidate
from resynth_fast.devices import cuda, cuda_driver
from resynth_fast.devices.base import CPU
from resynth_fast.devices.cuda import CudaDevice
from resynth_fast.devices.cuda_array import CudaArray
from resynth_fast.engines.pool import EnginePool
from resynth_fast.errors import BundleError
from resynth_fast.extractors.space import open_space
from resynth_fast.sampling import rescaled

PROMPTS, SEEDS = zoo.prompts()[:2], [7, 1 << 40]


def floats(*shape: int) -> Any:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


@pytest.fixture
def device(host_device: Any) -> CudaDevice:
    return CudaDevice(host_device, host_device.kernels)


def test_views_are_those_of_numpy_and_keep_their_memory(host_device: Any) -> None:
    values = floats(5, 2, 3)
    array = CudaArray.of(host_device, values)
    views = [(key, array[key]) for key in (slice(1, 3), slice(None, 2), slice(4, 9), slice(5, 5), 3, -1)]
    part = array[1:, 0, 1:]
    flat = array.reshape((5, 6))[2]
    del array
    for key, view in views:
        assert view.shape == values[key].shape
        np.testing.assert_array_equal(view.to_host(), values[key])
    np.testing.assert_array_equal(flat.to_host(), values[2].reshape(-1))
    np.testing.assert_array_equal(np.from_dlpack(part), values[1:, 0, 1:])
    assert [row.shape for row in part] == [(2,)] * 4
    with pytest.raises(AssertionError, match="not next to one another"):
        part.to_host()
    assert not host_device.freed
    del views, view, flat, part
    assert not host_device.memory


@pytest.mark.parametrize("dtype", ["float32", "uint8", "int64", "uint64"])
def test_other_libraries_read_an_array_without_a_copy(host_device: Any, dtype: str) -> None:
    values = (100 * np.abs(floats(4, 3))).astype(dtype)
    array = CudaArray.of(host_device, values)
    read = np.from_dlpack(array[1:])
    np.testing.assert_array_equal(read, values[1:])
    assert read.ctypes.data == array[1:].address
    del array
    np.testing.assert_array_equal(read, values[1:])  # the view keeps the memory alive
    del read
    assert not host_device.memory


def test_another_stream_reads_only_finished_work(host_device: Any) -> None:
    array = CudaArray.of(host_device, floats(3))
    array.__dlpack__(max_version=(1, 0), stream=None)
    assert host_device.waited == 0
    array.__dlpack__(max_version=(1, 0), stream=1)
    assert host_device.waited == 1


def test_kernels_of_cuda_take_arrays_of_a_device(host_device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a GPU can check this much: the launch fails, not the arguments."""
    _cuda = pytest.importorskip("resynth_fast.kernels._cuda")
    if _cuda.device_count():
        pytest.skip("there is a device, which would be given addresses of the host")
    monkeypatch.setattr(host_device, "dlpack", (2, 0), raising=False)
    device = CudaDevice(host_device, _cuda)
    image, pictures = device.empty((2, 3, 8, 8), "float32"), device.empty((2, 40, 50, 3), "uint8")
    for work in (
        lambda: device.normal_rows([1, 2], [0, 1], (4, 8, 8)),
        lambda: device.step(device.empty((2, 11), "float32"), [image], [image], out=image, noise=image),
        lambda: device.all_finite(image),
        lambda: device.to_uint8(image),
        lambda: device.resize([pictures[0, 1:30, 2:40], pictures[1]], 16),
        lambda: device.textures(device.empty((2, 64, 64, 3), "uint8"), 2843),
    ):
        with pytest.raises(RuntimeError, match=r"^CUDA: "):
            work()


def test_misaligned_rows_are_copied_to_aligned_addresses(host_device: Any) -> None:
    array = CudaArray.of(host_device, floats(5, 3))
    assert array.aligned() is array
    moved = array[1:].aligned()
    assert moved.address % 256 == 0
    np.testing.assert_array_equal(moved.to_host(), floats(5, 3)[1:])


OPERATIONS = {
    "noise": lambda device, x: device.normal_rows([3, 1 << 63], [0, 9], (4, 2, 3)),
    "joined": lambda device, x: device.concatenate([x, x[1:]]),
    "full": lambda device, x: device.full(3, 981.25),
    "deviation": lambda device, x: device.to_device(device.deviation(x)),
    "levels": lambda device, x: device.to_uint8(x),
    "rescaled": lambda device, x: rescaled(x, Guidance("rescaled", 7.5, 0.7), device),
}


@pytest.mark.parametrize("work", OPERATIONS.values(), ids=OPERATIONS)
def test_operations_on_a_device_agree_with_the_host(device: CudaDevice, work: Any) -> None:
    x = np.abs(floats(4, 3, 8, 8))
    np.testing.assert_array_equal(device.to_host(work(device, device.to_device(x))), work(CPU, x))


def test_values_that_are_not_finite_are_detected(device: CudaDevice) -> None:
    for i, harm in enumerate((np.nan, np.inf, -np.inf)):
        x = floats(2, 3, 5, 7)
        assert device.all_finite(device.to_device(x))
        x.reshape(-1)[i * 104] = harm  # the first, one amid, and the last
        assert not device.all_finite(device.to_device(x))


def of_bundle(name: str, device: CudaDevice | None = None) -> EngineCandidate:
    return EngineCandidate(zoo.bundle(name), EnginePool(OnnxRuntime(PROVIDERS["cpu"], device)))


@pytest.mark.parametrize("name", [bundle.name for bundle in zoo.candidates()])
def test_pictures_are_the_same_on_every_device(device: CudaDevice, name: str) -> None:
    np.testing.assert_array_equal(of_bundle(name, device).make(PROMPTS, SEEDS, 4), of_bundle(name).make(PROMPTS, SEEDS, 4))


def test_only_conditions_are_uploaded_and_only_pictures_and_features_downloaded(device: CudaDevice) -> None:
    """Small transfers are allowed: weights of the steps, seeds, and whether the pictures are finite."""
    candidate, space = of_bundle("zoo-sd", device), open_space(zoo.bundle(zoo.TEXTURE))
    candidate.make(PROMPTS, SEEDS, 1)  # fills the text cache on the host, which all candidates share
    device.context.copied.clear()
    there, pictures = candidate.draw(PROMPTS, SEEDS, 4)
    space.features(pictures, there)
    there.to_host(pictures)
    few = len(device.context.copied)
    assert [dtype.name for way, dtype in device.context.copied if way == "down"] == ["int32", "int32", "float32", "uint8"]
    device.context.copied.clear()
    pictures = candidate.make(PROMPTS, SEEDS, 8)
    assert len(device.context.copied) == few - 1  # only features; a step allocates nothing
    np.testing.assert_array_equal(space.features(device.to_device(np.stack(pictures)), device), space.features(pictures))


def test_a_verdict_is_the_same_on_every_device(device: CudaDevice, tmp_path: Path) -> None:
    Image.fromarray(of_bundle("zoo-sd").make(PROMPTS[:1], SEEDS[:1], 8)[0]).save(tmp_path / "probe.png")
    verdicts = [
        Attributor.open(["zoo:zoo-sd", "zoo:zoo-flux"], backend=OnnxRuntime(PROVIDERS["cpu"], where), threads=1, references=2, steps=2)(
            [tmp_path / "probe.png"]
        )[0]
        for where in (device, None)
    ]
    assert verdicts[0].probability == verdicts[1].probability
    assert [c.score for c in verdicts[0].candidates] == [c.score for c in verdicts[1].candidates]
    assert not device.context.memory


def test_memory_is_freed_after_each_picture(device: CudaDevice) -> None:
    of_bundle("zoo-sd", device).make(PROMPTS, SEEDS, 2)
    assert not device.context.memory


def test_an_engine_takes_arrays_of_the_host_too(device: CudaDevice) -> None:
    component = zoo.bundle("zoo-sd").components["decoder"]
    engine = OnnxRuntime(PROVIDERS["cpu"], device).load(component.onnx_model(), threads=1)
    latents = floats(2, *component.inputs["latents"].shape[1:])  # type: ignore[arg-type]
    image = engine.run({"latents": latents})["image"]
    assert isinstance(image, np.ndarray)
    np.testing.assert_array_equal(engine.run({"latents": device.to_device(latents)})["image"].to_host(), image)


@pytest.mark.parametrize("variant", ["cuda", "tensorrt"])
def test_a_provider_is_told_to_work_on_our_stream(device: CudaDevice, monkeypatch: pytest.MonkeyPatch, variant: str) -> None:
    import onnxruntime

    if PROVIDERS["cuda"] in onnxruntime.get_available_providers():
        pytest.skip("there is a CUDA execution provider, which would take the stream for one")
    asked: list[Any] = []
    session = onnxruntime.InferenceSession

    def watched(graph: bytes, options: Any, providers: Any, **more: Any) -> Any:
        asked.extend(providers)
        return session(graph, options, providers=providers, **more)

    monkeypatch.setattr(onnxruntime, "InferenceSession", watched)
    engine = OnnxRuntime(PROVIDERS[variant], device).load(zoo.bundle(zoo.TAGGER).components["tagger"].onnx_model(), threads=1)
    ours = {"user_compute_stream": "7"}
    assert asked[:-1] == [(PROVIDERS[name], ours) for name in dict.fromkeys([variant, "cuda"])]
    assert asked[-1] == (PROVIDERS["cpu"], {})  # what neither takes
    assert engine.fallback
    assert engine.device is CPU


@pytest.mark.parametrize(
    "spoil",
    [lambda x: {"other": x}, lambda x: {"latents": x, "more": x}, lambda x: {"latents": x.reshape((1, 210, 1, 1))}],
    ids=["missing", "unknown", "shape"],
)
def test_arrays_that_the_graph_does_not_take_are_refused(device: CudaDevice, spoil: Any) -> None:
    component = zoo.bundle("zoo-sd").components["decoder"]
    engine = OnnxRuntime(PROVIDERS["cpu"], device).load(component.onnx_model(), threads=1)
    x = device.to_device(floats(1, 210))
    with pytest.raises(BundleError, match="export the bundle again"):
        engine.run(spoil(x))


def test_without_kernels_or_a_device_arrays_go_through_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "cuda", lambda: None)
    cuda.cuda_device.cache_clear()
    assert cuda.cuda_device() is None
    monkeypatch.setattr(kernels, "cuda", object)
    monkeypatch.setattr(cuda_driver, "LIBRARY", "libcuda-that-is-not-there.so.1")
    for cached in (cuda.cuda_device, cuda_driver.context):
        cached.cache_clear()
    assert cuda.cuda_device() is None
    cuda.cuda_device.cache_clear()
    engine = backends.get("onnxruntime").load(zoo.bundle(zoo.TAGGER).components["tagger"].onnx_model(), threads=1)
    assert engine.device is CPU


@pytest.mark.gpu
@pytest.mark.parametrize("work", OPERATIONS.values(), ids=OPERATIONS)
def test_operations_of_a_gpu_agree_with_the_host(work: Any) -> None:
    device = cuda.cuda_device()
    assert device
    x = np.abs(floats(4, 3, 8, 8))
    np.testing.assert_array_equal(device.to_host(work(device, device.to_device(x))), work(CPU, x))
    assert device.all_finite(device.to_device(x))
    x[3, 2, 7, 7] = np.nan
    assert not device.all_finite(device.to_device(x))


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["zoo-sd", "zoo-flux"])
def test_pictures_of_a_gpu_are_those_of_the_cpu(name: str) -> None:
    pools = [EnginePool(backend) for backend in ("onnxruntime:cuda", "onnxruntime")]
    gpu, cpu = (EngineCandidate(zoo.bundle(name), pool).make(PROMPTS, SEEDS, 4) for pool in pools)
    if pools[0].fallbacks:
        pytest.skip(pools[0].fallbacks[0])
    assert np.abs(np.array(gpu, np.int16) - np.array(cpu)).max() <= 2
