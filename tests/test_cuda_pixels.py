"""The CUDA sources of texture and preprocess: without a GPU under the emulation header, and with one where there is one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from emulation import Emulation

from resynth_fast.extractors.texture import TextureExtractor
from resynth_fast.kernels.preprocess import FILTERS, jpeg_round_trip, resize, resize_to_unit, to_uint8

COUNTED = {"srm", "srm_half", "lbp", "chroma"}
ATOL = 2e-6  # of a float32 that a double was rounded to


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def textures() -> np.ndarray:
    """(2, 40, 40, 3): smooth noise; ties, full range and no blue."""
    rough = noise(42, 42).astype(int)
    smooth = sum(rough[y : y + 40, x : x + 40] for y in range(3) for x in range(3)) // 9
    checks = np.indices((40, 40)).sum(0)[..., None] % 2 * np.array([255, 255, 0])
    return np.stack([smooth, checks]).astype(np.uint8)


def assert_same_features(got: np.ndarray, want: np.ndarray, side: int) -> None:
    column = 0
    for name, size in TextureExtractor(side).block_sizes.items():
        block = slice(column, column + size)
        np.testing.assert_allclose(got[:, block], want[:, block], rtol=0, atol=0 if name in COUNTED else ATOL, err_msg=name)
        column += size


@pytest.mark.slow
def test_emulated_texture_is_that_of_the_processor(emulated_cuda: Callable[[str], Emulation]) -> None:
    library, batch, extractor = emulated_cuda("texture"), textures(), TextureExtractor(40)
    count, side = len(batch), 40
    workspace = np.empty(library.emulated_workspace(count, side), np.uint8)
    workspace[:] = 255  # NaN and nonsense: nothing may be read before it is written
    got = np.empty((len(batch), extractor.dimension), np.float32)
    assert library.emulated_texture(batch, count, side, workspace, got) == 0
    assert_same_features(got, extractor.extract(batch), 40)


@pytest.mark.parametrize("filter", FILTERS)
@pytest.mark.parametrize(("source", "side"), [(97, 31), (31, 65), (33, 33), (1, 7)])
def test_emulated_squares_are_those_of_the_processor(
    emulated_cuda: Callable[[str], Emulation], source: int, side: int, filter: str
) -> None:
    square = (noise(source, source + 5) // 128 * 255)[:, 2 : source + 2]  # a view; black beside white makes every clip work
    bytes_ = np.empty((side, side, 3), np.uint8)
    shape = (square.strides[0], source, side, FILTERS.index(filter))
    assert emulated_cuda("preprocess").emulated_resize(square, *shape, bytes_) == 0
    np.testing.assert_array_equal(bytes_, resize(square, side, side, filter=filter))  # type: ignore[arg-type]


@pytest.mark.parametrize(("source", "side"), [(50, 31), (20, 33), (1, 7)])
def test_emulated_unit_planes_are_those_of_the_processor(emulated_cuda: Callable[[str], Emulation], source: int, side: int) -> None:
    square = (noise(source, source + 5) // 128 * 255)[:, 2 : source + 2]
    planes = np.empty((3, side, side), np.float32)
    shape = (square.strides[0], source, side, FILTERS.index("bicubic"))
    assert emulated_cuda("preprocess").emulated_fit(square, *shape, planes) == 0
    np.testing.assert_array_equal(planes, resize_to_unit([square], side)[0])


def test_emulated_levels_are_those_of_the_processor(emulated_cuda: Callable[[str], Emulation]) -> None:
    image = (np.arange(-90, 2 * 3 * 7 * 31 - 90, dtype=np.float32) / np.float32(510)).reshape(2, 3, 7, 31)  # halves of levels, and beyond
    got = np.empty((2, 7, 31, 3), np.uint8)
    shape = (2, 7, 31)
    assert emulated_cuda("preprocess").emulated_levels(image, *shape, got) == 0
    np.testing.assert_array_equal(got, to_uint8(image))


@pytest.mark.parametrize("quality", [1, 75, 90])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 5), (7, 31), (33, 97), (64, 64)])
def test_emulated_jpeg_is_that_of_the_processor(emulated_cuda: Callable[[str], Emulation], height: int, width: int, quality: int) -> None:
    pixels = noise(height, width)
    got = np.empty_like(pixels)
    run = emulated_cuda("preprocess").emulated_jpeg
    assert run(pixels, height, width, quality, got) == 0
    np.testing.assert_array_equal(got, jpeg_round_trip(pixels, quality))


@pytest.mark.gpu
def test_texture_on_a_gpu_is_that_of_the_processor() -> None:
    torch = pytest.importorskip("torch")
    from resynth_fast.kernels import _cuda

    for side in (40, 64, 256):
        batch = np.stack([noise(side, side, seed) for seed in range(3)])
        extractor = TextureExtractor(side)
        features = torch.empty((3, extractor.dimension), device="cuda")
        workspace = torch.empty(_cuda.texture_workspace_bytes(3, side), dtype=torch.uint8, device="cuda")
        _cuda.texture(torch.from_numpy(batch).cuda(), features, workspace, torch.cuda.current_stream().cuda_stream)
        assert_same_features(features.cpu().numpy(), extractor.extract(batch), side)


@pytest.mark.gpu
def test_preprocess_on_a_gpu_is_that_of_the_processor_and_can_be_captured() -> None:
    torch = pytest.importorskip("torch")
    from resynth_fast.kernels import _cuda

    pixels = noise(513, 513)
    on_device = torch.from_numpy(pixels).cuda()
    planes, coded = torch.zeros((3, 336, 336), device="cuda"), torch.zeros_like(on_device)
    space = torch.empty(_cuda.preprocess_workspace_bytes(513, 513, 336, 336, "bicubic"), dtype=torch.uint8, device="cuda")
    more_space = torch.empty(_cuda.jpeg_workspace_bytes(513, 513), dtype=torch.uint8, device="cuda")
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        stream = torch.cuda.current_stream().cuda_stream
        _cuda.fit(on_device, "bicubic", planes, space, stream)
        _cuda.jpeg_round_trip(on_device, 90, coded, more_space, stream)
    graph.replay()
    np.testing.assert_array_equal(coded.cpu().numpy(), jpeg_round_trip(pixels, 90))
    # a fused multiply-add rounds once where the processor rounds twice
    np.testing.assert_allclose(planes.cpu().numpy(), resize_to_unit([pixels], 336)[0], rtol=0, atol=ATOL)
