"""Nearest neighbours follow the plain definition for any count, set of rows and device."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from galleries import BLOCKS, DIMENSION, block_file, exemplar, features, flip, layout, nearest

from resynth_fast.devices.cuda import CudaDevice
from resynth_fast.errors import BundleError, ConfigError
from resynth_fast.gallery import Gallery


def exact_neighbours(gallery, x, query, columns, per_generator, allowed):
    scale, mean = gallery.layout.scale[columns], gallery.layout.mean[columns]
    u, q = (x[:, columns] - mean) / scale, (query[columns] - mean) / scale
    cosines = u @ q / np.linalg.norm(u, axis=1) / np.linalg.norm(q)
    found = {}
    for entry in gallery.select():
        if entry.row in allowed:
            found.setdefault(entry.generator, []).append((-cosines[entry.row], entry.row))
    return {name: sorted(values)[:per_generator] for name, values in found.items()}


@pytest.mark.parametrize("blocks", [["deep"], ["shallow", "deep"], ["shallow"]])
@pytest.mark.parametrize("narrowed", [False, True])
def test_neighbours_are_those_of_the_plain_definition(gallery: Gallery, blocks: Any, narrowed: Any) -> None:
    x = features(300)
    gallery.add([exemplar(i, f"g{i % 3}") for i in range(300)], x)
    query, rows = features(1, seed=5)[0], np.arange(0, 300, 2)
    found = nearest(gallery, query, blocks, per_generator=4, rows=rows if narrowed else None)
    columns = np.concatenate([np.arange(DIMENSION)[part] for part in gallery.layout.column_of(blocks).values()])
    expected = exact_neighbours(gallery, x, query, columns, 4, set(rows.tolist()) if narrowed else set(range(300)))
    assert {name: [n.entry.row for n in values] for name, values in found.items()} == {
        name: [row for _, row in values] for name, values in expected.items()
    }
    for name, values in expected.items():
        np.testing.assert_allclose([n.similarity for n in found[name]], [-cosine for cosine, _ in values], rtol=1e-6)


def test_many_queries_have_the_results_of_each_alone(filled_gallery: tuple[Gallery, np.ndarray]) -> None:
    gallery, x = filled_gallery
    together = gallery.nearest(x, ["deep"], per_generator=2)
    assert together == [nearest(gallery, query, ["deep"], per_generator=2) for query in x]
    assert gallery.nearest(x[:0], ["deep"]) == []


def test_neighbours_that_are_equal_in_float32_are_told_apart(tmp_path: Path) -> None:
    """Rows with a large mean differ in their last bits only; among equal rows the lower index comes first."""
    with Gallery.create(tmp_path / "gallery", layout(mean=np.full(DIMENSION, 100.0))) as gallery:
        x = 100 + features(1) + np.float32(1e-4) * features(30, seed=1)
        x[20:] = x[19]
        gallery.add([exemplar(i, f"g{i % 2}") for i in range(30)], x)
        x = gallery.features(range(30))
        expected = exact_neighbours(gallery, x.astype(np.float64), x[3].astype(np.float64), slice(5, 29), 9, range(30))
        found = nearest(gallery, x[3], ["deep"], per_generator=9)
        assert found["g1"][0].entry.row == 3
        for name, values in expected.items():
            np.testing.assert_allclose([n.similarity for n in found[name]], [-cosine for cosine, _ in values], rtol=1e-12)


def test_a_gallery_is_searched_on_a_device_as_on_the_cpu(tmp_path: Path, host_device: Any) -> None:
    device = CudaDevice(host_device, host_device.kernels)
    for storage in ("float32", "float16"):
        with Gallery.create(tmp_path / storage, layout(storage=storage)) as gallery:
            gallery.add([exemplar(i, f"g{i % 3}") for i in range(90)], features(90))
            for count in (1, 4, 60):  # the last exceeds the limit of the device's kernel
                expected = gallery.nearest(features(5, seed=1), ["deep", "shallow"], per_generator=count, rows=np.arange(0, 90, 2))
                copied = len(host_device.copied)
                found = gallery.nearest(
                    features(5, seed=1), ["deep", "shallow"], per_generator=count, rows=np.arange(0, 90, 2), device=device
                )
                assert found == expected
                uploads = [dtype for way, dtype in host_device.copied[copied:] if way == "up"]
                # queries, offsets, groups; in the first call also the blocks and their weights
                assert len(uploads) == {1: 6, 4: 3, 60: 0}[count]
            assert Gallery.create(tmp_path / f"empty {storage}", layout()).nearest(features(1), ["deep"], device=device) == [{}]
            [path] = (gallery.folder / "vectors").glob("deep.*")
            path.write_bytes(np.array([np.nan], storage).tobytes() + path.read_bytes()[np.dtype(storage).itemsize :])
            with Gallery.open(gallery.folder) as again, pytest.raises(BundleError, match="not finite"):
                again.nearest(features(1), ["deep"], device=device)


def test_neighbours_follow_what_others_add_and_prune(filled_gallery: tuple[Gallery, np.ndarray]) -> None:
    gallery, _ = filled_gallery
    query = features(1, seed=5)[0]
    nearest(gallery, query, ["deep"])
    with Gallery.open(gallery.folder) as other:
        other.add([exemplar(100, "new")], query[None])
    [neighbour] = nearest(gallery, query, ["deep"])["new"]
    assert neighbour.similarity == pytest.approx(1)
    flip(block_file(gallery), 4 * BLOCKS["deep"] * neighbour.entry.row)
    with Gallery.open(gallery.folder) as other:
        assert [damage.row for damage in other.prune()] == [neighbour.entry.row]
    assert "new" not in nearest(gallery, query, ["deep"])


def test_a_damaged_neighbour_is_an_error_not_an_answer(filled_gallery: tuple[Gallery, np.ndarray]) -> None:
    gallery, x = filled_gallery
    flip(block_file(gallery), 4 * BLOCKS["deep"] * 7 + 1)  # a low bit, so that the row remains the nearest
    with pytest.raises(BundleError, match=r"row 7 .* is damaged"):
        nearest(gallery, x[7], ["deep"])


def test_a_stored_nan_is_an_error_not_the_last_neighbour(filled_gallery: tuple[Gallery, np.ndarray]) -> None:
    gallery, x = filled_gallery
    with open(block_file(gallery), "r+b") as file:
        file.write(np.array([np.nan], "<f4").tobytes())
    with pytest.raises(BundleError, match="not finite"):
        nearest(gallery, x[7], ["deep"])


def test_the_mean_itself_has_similarity_zero(tmp_path: Path) -> None:
    with Gallery.create(tmp_path / "gallery", layout(mean=np.full(DIMENSION, 0.5))) as gallery:
        mean = np.full((1, DIMENSION), 0.5, np.float32)
        gallery.add([exemplar(1)], mean)
        assert nearest(gallery, features(1)[0], ["deep"])["g"][0].similarity == 0
        gallery.add([exemplar(2)], features(1))
        assert [neighbour.similarity for neighbour in nearest(gallery, mean[0], ["deep"])["g"]] == [0, 0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda g: nearest(g, features(1)[0], ["nothing"]), "no block 'nothing'"),
        (lambda g: nearest(g, features(1)[0], []), "at least one block"),
        (lambda g: nearest(g, features(1)[0, 1:], ["deep"]), "queries have shape"),
        (lambda g: nearest(g, features(1)[0] * np.nan, ["deep"]), "all finite"),
        (lambda g: nearest(g, features(1)[0], ["deep"], per_generator=0), "per_generator is 0"),
        (lambda g: nearest(g, features(1)[0], ["deep"], rows=np.array([12])), "this gallery has 12"),
    ],
)
def test_a_query_with_wrong_arguments_is_refused(filled_gallery: tuple[Gallery, np.ndarray], call: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        call(filled_gallery[0])
