"""Damaged entries are found, named and set aside, and never used."""

import json
import os
import re
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from galleries import BLOCKS, DIMENSION, block_file, exemplar, features, flip, layout, nearest

from resynth_fast.errors import BundleError, ConfigError, DeviceError
from resynth_fast.gallery import Gallery


def test_a_flipped_bit_anywhere_in_a_vector_is_found_pruned_and_mended(filled_gallery: tuple[Gallery, np.ndarray]) -> None:
    gallery, x = filled_gallery
    flip(block_file(gallery, "shallow"), 4 * BLOCKS["shallow"] * 4 + 7)
    flip(block_file(gallery, "deep"), 4 * BLOCKS["deep"] * 9 + 50)
    assert [damage.row for damage in gallery.verify()] == [4, 9]
    with pytest.raises(BundleError, match=r"row 4 .* is damaged"):
        gallery.features([3, 4])
    np.testing.assert_array_equal(gallery.features([3, 5]), x[[3, 5]])
    assert [damage.row for damage in gallery.prune()] == [4, 9]
    assert gallery.verify() == []
    assert len(gallery) == 10
    with pytest.raises(BundleError, match="no entry in row 4"):
        gallery.features([4])
    added = gallery.add([exemplar(4, "g1", "prompt 1")], x[4:5])
    assert added.entries[0].row == 12
    np.testing.assert_array_equal(gallery.features([12]), x[4:5])


def test_quarantine_preserves_the_record_of_an_entry(filled_gallery: tuple[Gallery, np.ndarray]) -> None:
    gallery, _ = filled_gallery
    flip(block_file(gallery), 0)
    gallery.prune()
    with sqlite3.connect(gallery.folder / "index.sqlite") as connection:
        [(record, reason)] = connection.execute("SELECT record, reason FROM quarantine").fetchall()
    connection.close()
    assert json.loads(record)["generator"] == "g0"
    assert json.loads(record)["picture"] == f"{0:064x}"
    assert "checksum" in reason


@pytest.mark.parametrize("left", [0, 1, 4 * 24 * 7, 4 * 24 * 7 + 5])
def test_a_vector_file_cut_short_loses_only_what_was_behind_the_cut(filled_gallery: tuple[Gallery, np.ndarray], left: Any) -> None:
    gallery, x = filled_gallery
    os.truncate(block_file(gallery), left)
    kept = left // (4 * BLOCKS["deep"])
    with Gallery.open(gallery.folder) as again:
        with pytest.raises(BundleError, match=r"cut short|disagree"):
            nearest(again, x[0], ["deep"])
        with pytest.raises(BundleError, match="cut short"):
            again.features(range(12))
        assert [damage.row for damage in again.verify()] == list(range(kept, 12))
        again.prune()
        assert again.verify() == []
        np.testing.assert_array_equal(again.features(range(kept)), x[:kept])
        assert sum(map(len, nearest(again, x[0], ["deep"], per_generator=9).values())) == kept
        added = again.add([exemplar(i, f"g{i % 3}", f"prompt {i // 3}") for i in range(12)], x)
        assert [entry.row for entry in added.entries] == [*range(kept), *range(12, 24 - kept)]
        np.testing.assert_array_equal(again.features([entry.row for entry in added.entries]), x)
        assert again.verify() == []
        assert nearest(again, x[11], ["deep"])["g2"][0].similarity == pytest.approx(1)


def test_a_file_cut_short_under_an_open_gallery_is_an_error_not_a_crash(filled_gallery: tuple[Gallery, np.ndarray]) -> None:
    gallery, x = filled_gallery
    nearest(gallery, x[0], ["deep"])
    os.truncate(block_file(gallery), 0)
    with pytest.raises(BundleError, match="cut short"):
        nearest(gallery, x[0], ["deep"])
    with pytest.raises(BundleError, match="cut short"):
        gallery.features([0])


def test_bytes_after_the_last_entry_are_ignored_but_never_overwritten(filled_gallery: tuple[Gallery, np.ndarray]) -> None:
    gallery, x = filled_gallery
    with open(block_file(gallery, "deep"), "ab") as file:
        file.write(b"\xff" * (4 * BLOCKS["deep"] + 1))  # one and a half rows, while the other block is unchanged
    before = {name: block_file(gallery, name).read_bytes() for name in BLOCKS}
    assert gallery.verify() == []
    assert gallery.add([exemplar(50)], features(1, 50)).entries[0].row == 14
    np.testing.assert_array_equal(gallery.features([11, 14]), np.concatenate([x[11:], features(1, 50)]))
    assert all(block_file(gallery, name).read_bytes().startswith(before[name]) for name in BLOCKS)
    assert gallery.verify() == []
    found = nearest(gallery, features(1, 50)[0], ["deep", "shallow"])
    assert {neighbour.entry.row for neighbours in found.values() for neighbour in neighbours} == {*range(12), 14}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("UPDATE entry SET prompt = 'another' WHERE row = 3", "checksum"),
        ("UPDATE entry SET generator = 1 + generator % 3 WHERE row = 3", "checksum"),
        ("UPDATE entry SET key = zeroblob(32) WHERE row = 3", "key"),
        ("UPDATE entry SET norms = zeroblob(8) WHERE row = 3", "norms"),
        ("UPDATE entry SET norms = x'00' WHERE row = 3", "norms"),
        ("UPDATE entry SET picture = 'x' WHERE row = 3", "cannot be read"),
        ("UPDATE entry SET origin = '[1]' WHERE row = 3", "cannot be read"),
        ("UPDATE entry SET prompt = CAST(x'ff' AS BLOB) WHERE row = 3", "checksum|cannot be read"),
        ("UPDATE entry SET row = 1000 WHERE row = 3", "missing"),
    ],
)
def test_a_changed_record_is_found_and_pruned(filled_gallery: tuple[Gallery, np.ndarray], change: Any, reason: Any) -> None:
    gallery, x = filled_gallery
    with sqlite3.connect(gallery.folder / "index.sqlite") as connection:
        connection.execute(change)
    connection.close()
    [damage] = gallery.verify()
    assert re.search(reason, damage.reason)
    gallery.prune()
    assert gallery.verify() == []
    assert len(gallery) == 11
    assert gallery.add([exemplar(3, "g0", "prompt 1")], x[3:4]).new == (True,)


def test_an_index_that_is_no_database_is_refused(filled_gallery: tuple[Gallery, np.ndarray]) -> None:
    gallery, _ = filled_gallery
    gallery.close()
    (gallery.folder / "index.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(BundleError, match=r"index\.sqlite cannot be used"):
        Gallery.open(gallery.folder)


def test_an_index_with_a_damaged_page_is_an_error(filled_gallery: tuple[Gallery, np.ndarray]) -> None:
    gallery, _ = filled_gallery
    gallery.close()
    path = gallery.folder / "index.sqlite"
    content = bytearray(path.read_bytes())
    content[8192:] = b"\x5a" * len(content[8192:])
    path.write_bytes(content)
    with pytest.raises(BundleError), Gallery.open(gallery.folder) as again:
        again.verify()


def test_the_database_of_another_program_is_refused(filled_gallery: tuple[Gallery, np.ndarray]) -> None:
    gallery, _ = filled_gallery
    gallery.close()
    (gallery.folder / "index.sqlite").unlink()
    with sqlite3.connect(gallery.folder / "index.sqlite") as connection:
        connection.execute("CREATE TABLE entry (x)")
    connection.close()
    with pytest.raises(BundleError, match="is not a gallery index of version 1"):
        Gallery.open(gallery.folder)


@pytest.mark.parametrize("missing", ["gallery.json", "index.sqlite", "vectors/deep.f32", "scaling.safetensors"])
def test_a_missing_file_is_named(filled_gallery: tuple[Gallery, np.ndarray], missing: Any) -> None:
    gallery, _ = filled_gallery
    gallery.close()
    (gallery.folder / missing).unlink()
    with pytest.raises(BundleError, match=missing.split("/")[-1].replace(".", r"\.")):
        Gallery.open(gallery.folder)
    if missing != "gallery.json":
        with pytest.raises(BundleError):
            Gallery.create(gallery.folder, layout())


def test_a_gallery_without_manifest_is_not_created_over_its_vectors(filled_gallery: tuple[Gallery, np.ndarray]) -> None:
    gallery, _ = filled_gallery
    gallery.close()
    (gallery.folder / "gallery.json").unlink()
    with pytest.raises(ConfigError, match=r"no gallery\.json"):
        Gallery.create(gallery.folder, layout())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(schema_version=2), "schema_version is 2"),
        (lambda m: m.update(blocks=[{"name": "../../x", "columns": 29}]), r"block '\.\./\.\./x'"),
        (lambda m: m.update(blocks=[{"name": "deep", "columns": -1}]), "-1 columns"),
        (lambda m: m.update(blocks=[{"name": "deep", "columns": 10**12}]), "columns"),
        (lambda m: m.update(blocks=[{"name": "deep", "columns": 28}]), "mean has shape"),
        (lambda m: m.update(blocks=7), "is broken"),
        (lambda m: m.update(storage="pickle"), "storage is 'pickle'"),
        (lambda m: m.update(extractor=None), "is broken"),
        (lambda m: m.pop("blocks"), "is broken"),
        (lambda m: m.update(scaling_sha256="0" * 64), "was changed or cut short"),
    ],
)
def test_a_manifest_that_is_not_understood_is_refused(gallery: Gallery, change: Any, message: str) -> None:
    path = gallery.folder / "gallery.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=message):
        Gallery.open(gallery.folder)


@pytest.mark.parametrize("content", ["", "{", "[]", "7", "[" * 100_000, '{"schema_version": 1}'])
def test_a_manifest_that_is_no_manifest_is_refused(gallery: Gallery, content: Any) -> None:
    (gallery.folder / "gallery.json").write_text(content)
    with pytest.raises(BundleError):
        Gallery.open(gallery.folder)


def test_another_extractor_is_refused(gallery: Gallery) -> None:
    with pytest.raises(BundleError, match="cannot be compared"):
        Gallery.open(gallery.folder, "b" * 64)
    with pytest.raises(BundleError, match="cannot be compared"):
        Gallery.create(gallery.folder, layout(sha256="b" * 64))
    with pytest.raises(BundleError, match="other blocks"):
        Gallery.create(gallery.folder, layout(blocks={"all": DIMENSION}))


def test_a_path_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("x")
    with pytest.raises(BundleError, match="no gallery at"):
        Gallery.open(path)
    with pytest.raises(ConfigError, match="is a file"):
        Gallery.create(path, layout())
    with pytest.raises(DeviceError, match="cannot be written"):
        Gallery.create(path / "below", layout())


def test_a_folder_with_other_things_in_it_is_not_filled(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("x")
    with pytest.raises(ConfigError, match=r"thesis\.txt"):
        Gallery.create(tmp_path, layout())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_moved_gallery_is_the_same(filled_gallery: tuple[Gallery, np.ndarray], tmp_path: Path) -> None:
    gallery, x = filled_gallery
    before = gallery.snapshot().sha256
    gallery.close()
    shutil.move(gallery.folder, tmp_path / "elsewhere ?#%")
    with Gallery.open(tmp_path / "elsewhere ?#%") as moved:
        assert moved.snapshot().sha256 == before
        np.testing.assert_array_equal(moved.features(range(12)), x)
