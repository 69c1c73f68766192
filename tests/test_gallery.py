"""What is in a gallery is exactly what was put there, or it is not used at all."""

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from resynth_fast import zoo
from resynth_fast.devices.cuda import CudaDevice
from resynth_fast.errors import BundleError, ConfigError, DeviceError, InputError
from resynth_fast.extractors.space import open_space
from resynth_fast.gallery import Entry, Gallery, Layout, ResynthesisKey, pixels_sha256, store

BLOCKS = {"shallow": 5, "deep": 24}
DIMENSION = sum(BLOCKS.values())
CRASH = Path(__file__).with_name("gallery_crash.py")


def layout(**changes):
    rng = np.random.default_rng(1)
    values = {
        "name": "test",
        "sha256": "a" * 64,
        "blocks": BLOCKS,
        "mean": rng.standard_normal(DIMENSION),
        "scale": rng.uniform(0.5, 2, DIMENSION),
    }
    return Layout(**{**values, **changes})


def given(number, generator="g", prompt=None):
    return Entry(generator=generator, picture_sha256=f"{number:064x}", prompt=prompt)


def origin(**changes):
    values = {
        "bundle_sha256": "b" * 64,
        "prompt": "a face",
        "table_sha256": "c" * 64,
        "steps": 4,
        "guidance_scale": 3.0,
        "resolution_px": (64, 48),
        "seed": 7,
        "backend": "onnxruntime 1.32.0",
        "precision": "denoiser fp16",
        "noise_version": 1,
    }
    return ResynthesisKey(**{**values, **changes})


def features(count, seed=0):
    return np.random.default_rng(seed).standard_normal((count, DIMENSION)).astype(np.float32)


@pytest.fixture(scope="session")
def templates(tmp_path_factory):
    """An empty gallery and one of twelve entries by three generators, made once: what is made is synced, and that takes time."""
    folder = tmp_path_factory.mktemp("galleries")
    Gallery.create(folder / "empty", layout()).close()
    with Gallery.create(folder / "filled", layout()) as gallery:
        gallery.add([given(i, f"g{i % 3}", f"prompt {i // 3}") for i in range(12)], features(12))
    return folder


@pytest.fixture
def gallery(templates, tmp_path):
    shutil.copytree(templates / "empty", tmp_path / "gallery")
    with Gallery.open(tmp_path / "gallery") as opened:
        yield opened


@pytest.fixture
def filled(templates, tmp_path):
    """(gallery, features)"""
    shutil.copytree(templates / "filled", tmp_path / "gallery")
    with Gallery.open(tmp_path / "gallery") as opened:
        yield opened, features(12)


def block_file(gallery, name="deep"):
    return gallery.folder / "vectors" / f"{name}.f32"


def flip(path, offset):
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 1]))


# Keeping


def test_features_come_back_bit_for_bit_also_in_another_process(filled):
    gallery, x = filled
    np.testing.assert_array_equal(gallery.features(range(12)), x)
    with Gallery.open(gallery.folder, "a" * 64) as again:
        np.testing.assert_array_equal(again.features([11, 0, 5, 5]), x[[11, 0, 5, 5]])
        assert len(again) == 12
        assert again.verify() == []


def test_the_same_picture_twice_is_one_entry(gallery):
    first = gallery.add([given(1), given(1), given(2)], features(3))
    assert first.new == (True, False, True)
    assert [entry.row for entry in first.entries] == [0, 0, 1]
    again = gallery.add([given(2)], features(1, seed=9))
    assert again.new == (False,)
    assert len(gallery) == 2
    np.testing.assert_array_equal(gallery.features([1]), features(3)[2:])


def test_one_picture_claimed_for_two_generators_is_found(gallery):
    gallery.add([given(1, "one"), given(1, "two")], features(2))
    assert {entry.generator for entry in gallery.contains(f"{1:064x}")} == {"one", "two"}


def test_adding_nothing_changes_nothing(gallery):
    assert gallery.add([], features(0)).entries == ()
    assert len(gallery) == 0
    assert gallery.features([]).shape == (0, DIMENSION)
    assert nearest(gallery, features(1)[0], ["deep"]) == {}


@pytest.mark.parametrize("prompt", ["ein Gesicht 🙂", "写真", "a\n'b\" %s ; DROP TABLE entry; --", "", "e\u0301 \u202e"])
def test_any_unicode_prompt_is_kept_and_found(gallery, prompt):
    gallery.add([given(1, "Генератор №1", prompt), given(2, "Генератор №1")], features(2))
    [found] = gallery.select(prompt=prompt)
    assert (found.prompt, found.generator, found.row) == (prompt, "Генератор №1", 0)


@pytest.mark.parametrize("prompt", ["\ud800", "a\0b", "x" * 20_001])
def test_a_prompt_that_is_no_text_is_refused(prompt):
    with pytest.raises(InputError, match="prompt"):
        given(1, prompt=prompt)


@pytest.mark.parametrize("name", ["", " g", "g\n", "x" * 101, "a\x1b[31m"])
def test_a_generator_without_a_proper_name_is_refused(name):
    with pytest.raises(InputError, match="generator is"):
        given(1, name)


def test_selecting_joins_all_conditions(filled):
    gallery, _ = filled
    assert [entry.row for entry in gallery.select(generator="g1")] == [1, 4, 7, 10]
    assert [entry.row for entry in gallery.select(generator="g1", prompt="prompt 2")] == [7]
    assert gallery.select(generator="nobody") == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (features(2), "1 entries, but features of 2"),
        (features(1)[:, 1:], "takes"),
        (np.full((1, DIMENSION), np.nan, np.float32), "not finite"),
        (np.full((1, DIMENSION), np.inf, np.float32), "not finite"),
    ],
)
def test_features_that_do_not_fit_are_refused_and_nothing_is_kept(gallery, values, message):
    with pytest.raises(ConfigError, match=message):
        gallery.add([given(1)], values)
    assert len(gallery) == 0


def test_float16_is_rounded_once_and_too_large_a_value_refused(tmp_path):
    with Gallery.create(tmp_path / "half", layout(storage="float16")) as gallery:
        x = features(3)
        gallery.add([given(i) for i in range(3)], x)
        np.testing.assert_array_equal(gallery.features(range(3)), x.astype(np.float16).astype(np.float32))
        assert gallery.verify() == []
        assert nearest(gallery, x[1], ["deep"], per_generator=1)["g"][0].entry.row == 1
        with pytest.raises(ConfigError, match="not finite as float16"):
            gallery.add([given(9)], x[:1] + 1e6)


# Reuse


def test_a_resynthesis_is_found_by_its_exact_key_and_by_no_other(gallery):
    entry = Entry.resynthesis("g", "d" * 64, origin())
    gallery.add([entry], features(1))
    found = gallery.lookup(origin())
    assert found is not None
    assert found.origin == origin()
    different = {
        "bundle_sha256": "e" * 64,
        "prompt": "a face ",
        "table_sha256": "e" * 64,
        "steps": 5,
        "guidance_scale": 3.5,
        "resolution_px": (48, 64),
        "seed": 8,
        "backend": "onnxruntime 1.33.0",
        "precision": "denoiser fp32",
        "noise_version": 2,
    }
    for field, value in different.items():
        assert gallery.lookup(replace(origin(), **{field: value})) is None, field
    assert set(different) == set(ResynthesisKey.__slots__)


def test_the_key_of_a_bundle_names_all_that_decides_the_picture():
    bundle = zoo.bundle("zoo-sd")
    key = ResynthesisKey.of(bundle, "a face", seed=3, steps=8, backend="b")
    assert (key.resolution_px, key.guidance_scale, key.bundle_sha256) == ((64, 64), bundle.guidance.scale, bundle.sha256)
    assert "denoiser" in key.precision
    assert key.table_sha256 != ResynthesisKey.of(bundle, "a face", seed=3, steps=4, backend="b").table_sha256


def test_a_damaged_resynthesis_is_made_again_once(gallery):
    entry = Entry.resynthesis("g", "d" * 64, origin())
    gallery.add([entry], features(1))
    flip(block_file(gallery), 10)
    assert gallery.lookup(origin()) is None
    assert len(gallery) == 0
    added = gallery.add([entry], features(1))
    assert added.entries[0].row == 1
    assert gallery.lookup(origin()) == added.entries[0]
    np.testing.assert_array_equal(gallery.features([1]), features(1))
    assert gallery.verify() == []


def test_pixels_of_a_resynthesis_come_back_and_damage_shows(gallery):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 48, 3), np.uint8)
    entry = Entry.resynthesis("g", pixels_sha256(pixels), origin())
    assert gallery.picture(entry) is None
    gallery.add([entry], features(1), pixels=[pixels])
    np.testing.assert_array_equal(gallery.picture(entry), pixels)
    [path] = (gallery.folder / "pictures").rglob("*.png")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(BundleError, match="damaged"):
        gallery.picture(entry)


def test_pixels_must_be_what_the_entry_says(gallery):
    pixels = np.zeros((64, 64, 3), np.uint8)
    with pytest.raises(ConfigError, match="not that of its pixels"):
        gallery.add([Entry.resynthesis("g", "d" * 64, origin())], features(1), pixels=[pixels])
    with pytest.raises(ConfigError, match="given picture"):
        gallery.add([given(1)], features(1), pixels=[pixels])


def test_an_entry_must_not_contradict_its_origin():
    with pytest.raises(InputError, match="was made from"):
        Entry(generator="g", picture_sha256="d" * 64, prompt="another", origin=origin())


# Neighbours


def nearest(gallery, query, blocks, **options):
    [found] = gallery.nearest(query[None], blocks, **options)
    return found


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
def test_neighbours_are_those_of_the_plain_definition(gallery, blocks, narrowed):
    x = features(300)
    gallery.add([given(i, f"g{i % 3}") for i in range(300)], x)
    query, rows = features(1, seed=5)[0], np.arange(0, 300, 2)
    found = nearest(gallery, query, blocks, per_generator=4, rows=rows if narrowed else None)
    columns = np.concatenate([np.arange(DIMENSION)[part] for part in gallery.layout.column_of(blocks).values()])
    expected = exact_neighbours(gallery, x, query, columns, 4, set(rows.tolist()) if narrowed else set(range(300)))
    assert {name: [n.entry.row for n in values] for name, values in found.items()} == {
        name: [row for _, row in values] for name, values in expected.items()
    }
    for name, values in expected.items():
        np.testing.assert_allclose([n.similarity for n in found[name]], [-cosine for cosine, _ in values], rtol=1e-6)


def test_many_queries_are_answered_as_each_alone(filled):
    gallery, x = filled
    together = gallery.nearest(x, ["deep"], per_generator=2)
    assert together == [nearest(gallery, query, ["deep"], per_generator=2) for query in x]
    assert gallery.nearest(x[:0], ["deep"]) == []


def test_neighbours_that_float32_confuses_are_told_apart(tmp_path):
    """Rows of a large mean that differ in the last bits, and equal ones, of which the first go first."""
    with Gallery.create(tmp_path / "gallery", layout(mean=np.full(DIMENSION, 100.0))) as gallery:
        x = 100 + features(1) + np.float32(1e-4) * features(30, seed=1)
        x[20:] = x[19]
        gallery.add([given(i, f"g{i % 2}") for i in range(30)], x)
        x = gallery.features(range(30))
        expected = exact_neighbours(gallery, x.astype(np.float64), x[3].astype(np.float64), slice(5, 29), 9, range(30))
        found = nearest(gallery, x[3], ["deep"], per_generator=9)
        assert found["g1"][0].entry.row == 3
        for name, values in expected.items():
            np.testing.assert_allclose([n.similarity for n in found[name]], [-cosine for cosine, _ in values], rtol=1e-12)


def test_a_gallery_is_searched_on_a_device_as_on_the_cpu(tmp_path, host_device):
    device = CudaDevice(host_device, host_device.kernels)
    for storage in ("float32", "float16"):
        with Gallery.create(tmp_path / storage, layout(storage=storage)) as gallery:
            gallery.add([given(i, f"g{i % 3}") for i in range(90)], features(90))
            for count in (1, 4, 60):  # the last is more than the device's kernel gives
                expected = gallery.nearest(features(5, seed=1), ["deep", "shallow"], per_generator=count, rows=np.arange(0, 90, 2))
                copied = len(host_device.copied)
                found = gallery.nearest(
                    features(5, seed=1), ["deep", "shallow"], per_generator=count, rows=np.arange(0, 90, 2), device=device
                )
                assert found == expected
                uploads = [dtype for way, dtype in host_device.copied[copied:] if way == "up"]
                # queries, offsets, groups; the first time the blocks and their weights too
                assert len(uploads) == {1: 6, 4: 3, 60: 0}[count]
            [path] = (gallery.folder / "vectors").glob("deep.*")
            path.write_bytes(np.array([np.nan], storage).tobytes() + path.read_bytes()[np.dtype(storage).itemsize :])
            with Gallery.open(gallery.folder) as again, pytest.raises(BundleError, match="not finite"):
                again.nearest(features(1), ["deep"], device=device)


def test_neighbours_follow_what_others_add_and_prune(filled):
    gallery, _ = filled
    query = features(1, seed=5)[0]
    nearest(gallery, query, ["deep"])
    with Gallery.open(gallery.folder) as other:
        other.add([given(100, "new")], query[None])
    [neighbour] = nearest(gallery, query, ["deep"])["new"]
    assert neighbour.similarity == pytest.approx(1)
    flip(block_file(gallery), 4 * BLOCKS["deep"] * neighbour.entry.row)
    with Gallery.open(gallery.folder) as other:
        assert [damage.row for damage in other.prune()] == [neighbour.entry.row]
    assert "new" not in nearest(gallery, query, ["deep"])


def test_a_damaged_neighbour_is_an_error_not_an_answer(filled):
    gallery, x = filled
    flip(block_file(gallery), 4 * BLOCKS["deep"] * 7 + 1)  # a low bit: still the nearest
    with pytest.raises(BundleError, match=r"row 7 .* is damaged"):
        nearest(gallery, x[7], ["deep"])


def test_a_stored_nan_is_an_error_not_the_last_place(filled):
    gallery, x = filled
    with open(block_file(gallery), "r+b") as file:
        file.write(np.array([np.nan], "<f4").tobytes())
    with pytest.raises(BundleError, match="not finite"):
        nearest(gallery, x[7], ["deep"])


def test_the_mean_itself_has_similarity_zero(tmp_path):
    with Gallery.create(tmp_path / "gallery", layout(mean=np.full(DIMENSION, 0.5))) as gallery:
        mean = np.full((1, DIMENSION), 0.5, np.float32)
        gallery.add([given(1)], mean)
        assert nearest(gallery, features(1)[0], ["deep"])["g"][0].similarity == 0
        gallery.add([given(2)], features(1))
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
def test_a_question_that_cannot_be_answered_is_refused(filled, call, message):
    with pytest.raises(ConfigError, match=message):
        call(filled[0])


# Snapshots and fits


def test_a_snapshot_is_the_same_in_whatever_order_entries_came(tmp_path):
    x, entries = features(6), [given(i, f"g{i % 2}", "p") for i in range(6)]
    hashes = set()
    for name, order in (("a", [0, 1, 2, 3, 4, 5]), ("b", [5, 3, 1, 0, 2, 4])):
        with Gallery.create(tmp_path / name, layout()) as gallery:
            for i in order:
                gallery.add([entries[i]], x[i : i + 1])
            snapshot = gallery.snapshot()
            hashes.add(snapshot.sha256)
            by_key = {entry.key: i for i, entry in enumerate(entries)}
            np.testing.assert_array_equal(gallery.features(snapshot.rows), x[[by_key[key] for key in snapshot.keys]])
    assert len(hashes) == 1


def test_a_snapshot_changes_with_every_fact_and_every_feature(tmp_path):
    hashes = set()
    changed = features(1)
    changed[0, 3] = np.nextafter(changed[0, 3], 1)
    for i, (entry, x, extractor) in enumerate(
        [
            (given(1, "g", "p"), features(1), "a"),
            (given(2, "g", "p"), features(1), "a"),
            (given(1, "h", "p"), features(1), "a"),
            (given(1, "g", "q"), features(1), "a"),
            (given(1, "g", "p"), changed, "a"),
            (given(1, "g", "p"), features(1), "b"),
        ]
    ):
        with Gallery.create(tmp_path / str(i), layout(sha256=extractor * 64)) as gallery:
            gallery.add([entry], x)
            hashes.add(gallery.snapshot().sha256)
    assert len(hashes) == 6


def test_pictures_of_a_probe_enter_a_fit_only_where_named(gallery):
    gallery.add([given(1)], features(1))
    before = gallery.snapshot().sha256
    gallery.add([given(2)], features(1, 2), group="probe 17")
    assert gallery.snapshot().sha256 == before
    assert len(gallery.snapshot(["general", "probe 17"])) == 2
    gallery.add([given(2)], features(1, 2))  # wanted for everybody, too: it joins, though it is there
    assert len(gallery.snapshot()) == 2
    assert gallery.groups() == {"general": 2, "probe 17": 1}


def test_a_fit_brings_its_snapshot_back_after_the_gallery_has_grown(filled):
    gallery, _ = filled
    snapshot = gallery.snapshot()
    name = gallery.write_fit(snapshot, {"mean": np.arange(3.0)}, {"recipe": "default", "b": 0.3})
    assert name == gallery.write_fit(snapshot, {"mean": np.arange(3.0)}, {"b": 0.3, "recipe": "default"})
    gallery.add([given(99)], features(1, 3))
    fit = gallery.read_fit(name)
    again = gallery.snapshot(keys=fit.keys)
    assert (again.sha256, fit.snapshot_sha256) == (snapshot.sha256, snapshot.sha256)
    np.testing.assert_array_equal(again.rows, snapshot.rows)
    np.testing.assert_array_equal(fit.arrays["mean"], np.arange(3.0))
    assert fit.settings == {"recipe": "default", "b": 0.3}
    assert gallery.fits() == [name]


def test_a_fit_that_was_changed_or_whose_entries_are_gone_is_refused(filled):
    gallery, _ = filled
    name = gallery.write_fit(gallery.snapshot(), {"mean": np.arange(3.0)}, {})
    flip(block_file(gallery), 0)
    gallery.prune()
    with pytest.raises(BundleError, match="lacks 1 entries"):
        gallery.snapshot(keys=gallery.read_fit(name).keys)
    flip(gallery.folder / "fits" / f"{name}.safetensors", 200)
    with pytest.raises(BundleError, match="was changed or truncated"):
        gallery.read_fit(name)
    with pytest.raises(BundleError, match="cannot be read"):
        gallery.read_fit("0" * 64)
    with pytest.raises(ConfigError, match="64 hexadecimal digits"):
        gallery.read_fit("../gallery")


# Damage


def test_a_flipped_bit_anywhere_in_a_vector_is_found_pruned_and_mended(filled):
    gallery, x = filled
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
    added = gallery.add([given(4, "g1", "prompt 1")], x[4:5])
    assert added.entries[0].row == 12
    np.testing.assert_array_equal(gallery.features([12]), x[4:5])


def test_quarantine_keeps_what_was_said(filled):
    gallery, _ = filled
    flip(block_file(gallery), 0)
    gallery.prune()
    with sqlite3.connect(gallery.folder / "index.sqlite") as connection:
        [(record, reason)] = connection.execute("SELECT record, reason FROM quarantine").fetchall()
    connection.close()
    assert json.loads(record)["generator"] == "g0"
    assert json.loads(record)["picture"] == f"{0:064x}"
    assert "checksum" in reason


@pytest.mark.parametrize("left", [0, 1, 4 * 24 * 7, 4 * 24 * 7 + 5])
def test_a_vector_file_cut_short_loses_only_what_was_behind_the_cut(filled, left):
    gallery, x = filled
    os.truncate(block_file(gallery), left)
    kept = left // (4 * BLOCKS["deep"])
    with Gallery.open(gallery.folder) as again:
        with pytest.raises(BundleError, match=r"cut short|do not agree"):
            nearest(again, x[0], ["deep"])
        with pytest.raises(BundleError, match="cut short"):
            again.features(range(12))
        assert [damage.row for damage in again.verify()] == list(range(kept, 12))
        again.prune()
        assert again.verify() == []
        np.testing.assert_array_equal(again.features(range(kept)), x[:kept])
        assert sum(map(len, nearest(again, x[0], ["deep"], per_generator=9).values())) == kept
        added = again.add([given(i, f"g{i % 3}", f"prompt {i // 3}") for i in range(12)], x)
        assert [entry.row for entry in added.entries] == [*range(kept), *range(12, 24 - kept)]
        np.testing.assert_array_equal(again.features([entry.row for entry in added.entries]), x)
        assert again.verify() == []
        assert nearest(again, x[11], ["deep"])["g2"][0].similarity == pytest.approx(1)


def test_a_file_cut_short_under_an_open_gallery_is_an_error_not_a_crash(filled):
    gallery, x = filled
    nearest(gallery, x[0], ["deep"])
    os.truncate(block_file(gallery), 0)
    with pytest.raises(BundleError, match="cut short"):
        nearest(gallery, x[0], ["deep"])
    with pytest.raises(BundleError, match="cut short"):
        gallery.features([0])


def test_what_lies_behind_the_last_entry_is_nothing_but_is_never_overwritten(filled):
    gallery, x = filled
    with open(block_file(gallery, "deep"), "ab") as file:
        file.write(b"\xff" * (4 * BLOCKS["deep"] + 1))  # a whole row and a part, and in the other block nothing
    before = {name: block_file(gallery, name).read_bytes() for name in BLOCKS}
    assert gallery.verify() == []
    assert gallery.add([given(50)], features(1, 50)).entries[0].row == 14
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
def test_a_changed_record_is_found_and_pruned(filled, change, reason):
    gallery, x = filled
    with sqlite3.connect(gallery.folder / "index.sqlite") as connection:
        connection.execute(change)
    connection.close()
    [damage] = gallery.verify()
    assert re.search(reason, damage.reason)
    gallery.prune()
    assert gallery.verify() == []
    assert len(gallery) == 11
    assert gallery.add([given(3, "g0", "prompt 1")], x[3:4]).new == (True,)


def test_an_index_that_is_no_database_is_refused(filled):
    gallery, _ = filled
    gallery.close()
    (gallery.folder / "index.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(BundleError, match=r"index\.sqlite cannot be used"):
        Gallery.open(gallery.folder)


def test_an_index_with_a_damaged_page_is_an_error(filled):
    gallery, _ = filled
    gallery.close()
    path = gallery.folder / "index.sqlite"
    content = bytearray(path.read_bytes())
    content[8192:] = b"\x5a" * len(content[8192:])
    path.write_bytes(content)
    with pytest.raises(BundleError), Gallery.open(gallery.folder) as again:
        again.verify()


def test_the_database_of_another_program_is_refused(filled):
    gallery, _ = filled
    gallery.close()
    (gallery.folder / "index.sqlite").unlink()
    with sqlite3.connect(gallery.folder / "index.sqlite") as connection:
        connection.execute("CREATE TABLE entry (x)")
    connection.close()
    with pytest.raises(BundleError, match="no gallery index of version 1"):
        Gallery.open(gallery.folder)


@pytest.mark.parametrize("missing", ["gallery.json", "index.sqlite", "vectors/deep.f32", "scaling.safetensors"])
def test_a_missing_file_is_named(filled, missing):
    gallery, _ = filled
    gallery.close()
    (gallery.folder / missing).unlink()
    with pytest.raises(BundleError, match=missing.split("/")[-1].replace(".", r"\.")):
        Gallery.open(gallery.folder)
    if missing != "gallery.json":
        with pytest.raises(BundleError):
            Gallery.create(gallery.folder, layout())


def test_a_gallery_without_manifest_is_not_begun_anew_over_its_vectors(filled):
    gallery, _ = filled
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
        (lambda m: m.update(scaling_sha256="0" * 64), "was changed or truncated"),
    ],
)
def test_a_manifest_that_is_not_understood_is_refused(gallery, change, message):
    path = gallery.folder / "gallery.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=message):
        Gallery.open(gallery.folder)


@pytest.mark.parametrize("content", ["", "{", "[]", "7", "[" * 100_000, '{"schema_version": 1}'])
def test_a_manifest_that_is_no_manifest_is_refused(gallery, content):
    (gallery.folder / "gallery.json").write_text(content)
    with pytest.raises(BundleError):
        Gallery.open(gallery.folder)


def test_another_extractor_is_refused(gallery):
    with pytest.raises(BundleError, match="cannot be compared"):
        Gallery.open(gallery.folder, "b" * 64)
    with pytest.raises(BundleError, match="cannot be compared"):
        Gallery.create(gallery.folder, layout(sha256="b" * 64))
    with pytest.raises(BundleError, match="other blocks"):
        Gallery.create(gallery.folder, layout(blocks={"all": DIMENSION}))


def test_a_path_that_is_no_folder_is_refused(tmp_path):
    path = tmp_path / "file"
    path.write_text("x")
    with pytest.raises(BundleError, match="no gallery at"):
        Gallery.open(path)
    with pytest.raises(ConfigError, match="is a file"):
        Gallery.create(path, layout())
    with pytest.raises(DeviceError, match="cannot be written"):
        Gallery.create(path / "below", layout())


def test_a_folder_with_other_things_in_it_is_not_filled(tmp_path):
    (tmp_path / "thesis.txt").write_text("x")
    with pytest.raises(ConfigError, match=r"thesis\.txt"):
        Gallery.create(tmp_path, layout())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_moved_gallery_is_the_same(filled, tmp_path):
    gallery, x = filled
    before = gallery.snapshot().sha256
    gallery.close()
    shutil.move(gallery.folder, tmp_path / "elsewhere ?#%")
    with Gallery.open(tmp_path / "elsewhere ?#%") as moved:
        assert moved.snapshot().sha256 == before
        np.testing.assert_array_equal(moved.features(range(12)), x)


# Several at once


def test_threads_may_share_a_gallery(gallery):
    failures = []

    def work(number):
        try:
            for i in range(5):
                x = features(2, seed=100 * number + i)
                added = gallery.add([given(1000 * number + 2 * i + j, f"g{number}") for j in range(2)], x)
                np.testing.assert_array_equal(gallery.features([entry.row for entry in added.entries]), x)
                nearest(gallery, x[0], ["deep"])
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(gallery) == 40
    assert gallery.verify() == []


def test_a_writer_waits_for_another_and_then_says_so(gallery, monkeypatch):
    monkeypatch.setattr(store, "LOCK_WAIT_S", 0.05)
    with store._locked(gallery.folder), pytest.raises(DeviceError, match="written by another process"):
        gallery.add([given(1)], features(1))
    assert gallery.add([given(1)], features(1)).new == (True,)


def test_a_commit_that_fails_is_taken_back(gallery, monkeypatch):
    run = gallery._index.run

    def fail(sql, values=()):
        if sql == "COMMIT":
            raise DeviceError("disk full")
        return run(sql, values)

    monkeypatch.setattr(gallery._index, "run", fail)
    with pytest.raises(DeviceError, match="disk full"):
        gallery.add([given(1)], features(1))
    monkeypatch.undo()
    assert len(gallery) == 0
    assert gallery.add([given(1)], features(1)).new == (True,)


def test_a_failure_in_the_middle_leaves_nothing(gallery, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fdatasync", full)
    with pytest.raises(DeviceError, match="No space left"):
        gallery.add([given(1)], features(1))
    monkeypatch.undo()
    assert len(gallery) == 0
    assert gallery.verify() == []
    [entry] = gallery.add([given(2)], features(1, 2)).entries
    np.testing.assert_array_equal(gallery.features([entry.row]), features(1, 2))


def test_a_commit_that_comes_to_light_after_another_writer_died_is_whole(filled, tmp_path, monkeypatch):
    """A died between writing its commit to SQLite's log and announcing it; B did not see it, wrote vectors, and died, too."""
    gallery, x = filled
    after = tmp_path / "after"
    shutil.copytree(gallery.folder, after, ignore=shutil.ignore_patterns("*-wal", "*-shm"))
    [entry] = gallery.add([given(100)], features(1, 100)).entries  # by A; its log is not yet in the database
    for name in BLOCKS:
        shutil.copy(block_file(gallery, name), after / "vectors")
    with Gallery.open(after) as other:
        monkeypatch.setattr(other._index, "insert", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            other.add([given(200)], features(1, 200))
    shutil.copy(gallery.folder / "index.sqlite-wal", after)
    with Gallery.open(after) as recovered:
        assert recovered.verify() == []
        assert len(recovered) == 13
        np.testing.assert_array_equal(recovered.features([11, entry.row]), np.concatenate([x[11:], features(1, 100)]))


def crash(folder, *arguments):
    done = subprocess.run([sys.executable, "-W", "error", CRASH, folder, *arguments], capture_output=True, text=True, timeout=550)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


NOTHING = {"lost": 0, "altered": 0, "damaged": 0, "surplus": 0}


def test_a_writer_that_dies_at_any_of_its_writes_leaves_the_gallery_as_it_was(tmp_path):
    found = crash(tmp_path / "gallery", "points")
    assert found["points"] == 2 * len(BLOCKS)  # write, sync
    assert found == {**found, **NOTHING}


@pytest.mark.slow
def test_two_writers_killed_at_random_lose_nothing_that_was_finished(tmp_path):
    """25 kills; RESYNTH_TEST_KILLS=300 for the full trial."""
    kills = os.environ.get("RESYNTH_TEST_KILLS", "25")
    found = crash(tmp_path / "gallery", kills)
    assert found["kills"] == int(kills)
    assert found["finished"] >= int(kills) // 2  # they were at work when they died
    assert found == {**found, **NOTHING}


def test_many_may_begin_the_same_gallery(tmp_path):
    code = "import sys; sys.path.insert(0, sys.argv[2]); from gallery_crash import *; Gallery.create(Path(sys.argv[1]), layout()).add(*one(int(sys.argv[3]), 0))"
    command = [sys.executable, "-c", code, tmp_path / "gallery", CRASH.parent]
    processes = [subprocess.Popen([*command, str(number)], stderr=subprocess.PIPE, text=True) for number in range(4)]
    assert [(process.communicate(timeout=60)[1], process.returncode) for process in processes] == [("", 0)] * 4
    with Gallery.open(tmp_path / "gallery") as gallery:
        assert len(gallery) == 4
        assert gallery.verify() == []


def test_the_zoo_extractor_gives_a_layout():
    space = open_space(zoo.bundle(zoo.TEXTURE))
    made = Layout.of(space)
    assert (made.dimension, made.sha256) == (space.extractor.dimension, space.sha256)
