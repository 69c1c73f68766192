"""A gallery returns exactly the entries that were added."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from galleries import DIMENSION, block_file, exemplar, features, flip, layout, nearest, resynthesis_key

from resynth_fast import zoo
from resynth_fast.errors import BundleError, ConfigError, InputError
from resynth_fast.extractors.space import open_space
from resynth_fast.gallery import Entry, Gallery, Layout, ResynthesisKey, pixels_sha256

# Adding entries


def test_features_come_back_bit_for_bit_also_in_another_process(filled_gallery: tuple[Gallery, np.ndarray]) -> None:
    gallery, x = filled_gallery
    np.testing.assert_array_equal(gallery.features(range(12)), x)
    with Gallery.open(gallery.folder, "a" * 64) as again:
        np.testing.assert_array_equal(again.features([11, 0, 5, 5]), x[[11, 0, 5, 5]])
        assert len(again) == 12
        assert again.verify() == []


def test_the_same_picture_twice_is_one_entry(gallery: Gallery) -> None:
    first = gallery.add([exemplar(1), exemplar(1), exemplar(2)], features(3))
    assert first.new == (True, False, True)
    assert [entry.row for entry in first.entries] == [0, 0, 1]
    again = gallery.add([exemplar(2)], features(1, seed=9))
    assert again.new == (False,)
    assert len(gallery) == 2
    np.testing.assert_array_equal(gallery.features([1]), features(3)[2:])


def test_one_picture_under_two_generators_is_found_under_both(gallery: Gallery) -> None:
    gallery.add([exemplar(1, "one"), exemplar(1, "two")], features(2))
    assert {entry.generator for entry in gallery.contains(f"{1:064x}")} == {"one", "two"}


def test_adding_nothing_changes_nothing(gallery: Gallery) -> None:
    assert gallery.add([], features(0)).entries == ()
    assert len(gallery) == 0
    assert gallery.features([]).shape == (0, DIMENSION)
    assert nearest(gallery, features(1)[0], ["deep"]) == {}


@pytest.mark.parametrize("prompt", ["ein Gesicht 🙂", "写真", "a\n'b\" %s ; DROP TABLE entry; --", "", "e\u0301 \u202e"])
def test_any_unicode_prompt_is_stored_and_found(gallery: Gallery, prompt: Any) -> None:
    gallery.add([exemplar(1, "Генератор №1", prompt), exemplar(2, "Генератор №1")], features(2))
    [found] = gallery.select(prompt=prompt)
    assert (found.prompt, found.generator, found.row) == (prompt, "Генератор №1", 0)


@pytest.mark.parametrize("prompt", ["\ud800", "a\0b", "x" * 20_001])
def test_a_prompt_that_is_no_text_is_refused(prompt: Any) -> None:
    with pytest.raises(InputError, match="prompt"):
        exemplar(1, prompt=prompt)


@pytest.mark.parametrize("name", ["", " g", "g\n", "x" * 101, "a\x1b[31m"])
def test_a_generator_without_a_proper_name_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="generator is"):
        exemplar(1, name)


def test_selecting_joins_all_conditions(filled_gallery: tuple[Gallery, np.ndarray]) -> None:
    gallery, _ = filled_gallery
    assert [entry.row for entry in gallery.select(generator="g1")] == [1, 4, 7, 10]
    assert [entry.row for entry in gallery.select(generator="g1", prompt="prompt 2")] == [7]
    assert gallery.select(generator="nobody") == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (features(2), "1 entries, but 2 rows of features"),
        (features(1)[:, 1:], "takes"),
        (np.full((1, DIMENSION), np.nan, np.float32), "not finite"),
        (np.full((1, DIMENSION), np.inf, np.float32), "not finite"),
    ],
)
def test_features_of_a_wrong_shape_or_value_are_refused_and_nothing_is_stored(gallery: Gallery, values: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        gallery.add([exemplar(1)], values)
    assert len(gallery) == 0


def test_float16_is_rounded_once_and_too_large_a_value_refused(tmp_path: Path) -> None:
    with Gallery.create(tmp_path / "half", layout(storage="float16")) as gallery:
        x = features(3)
        gallery.add([exemplar(i) for i in range(3)], x)
        np.testing.assert_array_equal(gallery.features(range(3)), x.astype(np.float16).astype(np.float32))
        assert gallery.verify() == []
        assert nearest(gallery, x[1], ["deep"], per_generator=1)["g"][0].entry.row == 1
        with pytest.raises(ConfigError, match="not finite as float16"):
            gallery.add([exemplar(9)], x[:1] + 1e6)


# Cached resyntheses


def test_a_resynthesis_is_found_by_its_exact_key_and_by_no_other(gallery: Gallery) -> None:
    entry = Entry.resynthesis("g", "d" * 64, resynthesis_key())
    gallery.add([entry], features(1))
    found = gallery.lookup(resynthesis_key())
    assert found is not None
    assert found.origin == resynthesis_key()
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
        assert gallery.lookup(replace(resynthesis_key(), **{field: value})) is None, field
    assert set(different) == set(ResynthesisKey.__slots__)


def test_the_key_of_a_resynthesis_names_everything_that_decides_its_pixels() -> None:
    bundle = zoo.bundle("zoo-sd")
    key = ResynthesisKey.of(bundle, "a face", seed=3, steps=8, backend="b")
    assert (key.resolution_px, key.guidance_scale, key.bundle_sha256) == ((64, 64), bundle.guidance.scale, bundle.sha256)
    assert "denoiser" in key.precision
    assert key.table_sha256 != ResynthesisKey.of(bundle, "a face", seed=3, steps=4, backend="b").table_sha256


def test_a_damaged_resynthesis_is_stored_again_once(gallery: Gallery) -> None:
    entry = Entry.resynthesis("g", "d" * 64, resynthesis_key())
    gallery.add([entry], features(1))
    flip(block_file(gallery), 10)
    assert gallery.lookup(resynthesis_key()) is None
    assert len(gallery) == 0
    added = gallery.add([entry], features(1))
    assert added.entries[0].row == 1
    assert gallery.lookup(resynthesis_key()) == added.entries[0]
    np.testing.assert_array_equal(gallery.features([1]), features(1))
    assert gallery.verify() == []


def test_pixels_of_a_resynthesis_come_back_and_damage_shows(gallery: Gallery) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 48, 3), np.uint8)
    entry = Entry.resynthesis("g", pixels_sha256(pixels), resynthesis_key())
    assert gallery.picture(entry) is None
    gallery.add([entry], features(1), pixels=[pixels])
    np.testing.assert_array_equal(gallery.picture(entry), pixels)
    [path] = (gallery.folder / "pictures").rglob("*.png")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(BundleError, match="damaged"):
        gallery.picture(entry)


def test_pixels_must_match_the_hash_of_their_entry(gallery: Gallery) -> None:
    pixels = np.zeros((64, 64, 3), np.uint8)
    with pytest.raises(ConfigError, match="is not the hash of the pixels"):
        gallery.add([Entry.resynthesis("g", "d" * 64, resynthesis_key())], features(1), pixels=[pixels])
    with pytest.raises(ConfigError, match="is not a resynthesis"):
        gallery.add([exemplar(1)], features(1), pixels=[pixels])


def test_an_entry_must_not_contradict_its_origin() -> None:
    with pytest.raises(InputError, match="was made from"):
        Entry(generator="g", picture_sha256="d" * 64, prompt="another", origin=resynthesis_key())


# Snapshots and fits


def test_a_snapshot_does_not_depend_on_the_order_of_insertion(tmp_path: Path) -> None:
    x, entries = features(6), [exemplar(i, f"g{i % 2}", "p") for i in range(6)]
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


def test_a_snapshot_changes_with_every_fact_and_every_feature(tmp_path: Path) -> None:
    hashes = set()
    changed = features(1)
    changed[0, 3] = np.nextafter(changed[0, 3], 1)
    for i, (entry, x, extractor) in enumerate(
        [
            (exemplar(1, "g", "p"), features(1), "a"),
            (exemplar(2, "g", "p"), features(1), "a"),
            (exemplar(1, "h", "p"), features(1), "a"),
            (exemplar(1, "g", "q"), features(1), "a"),
            (exemplar(1, "g", "p"), changed, "a"),
            (exemplar(1, "g", "p"), features(1), "b"),
        ]
    ):
        with Gallery.create(tmp_path / str(i), layout(sha256=extractor * 64)) as gallery:
            gallery.add([entry], x)
            hashes.add(gallery.snapshot().sha256)
    assert len(hashes) == 6


def test_pictures_of_a_group_enter_a_fit_only_where_it_is_named(gallery: Gallery) -> None:
    gallery.add([exemplar(1)], features(1))
    before = gallery.snapshot().sha256
    gallery.add([exemplar(2)], features(1, 2), group="probe 17")
    assert gallery.snapshot().sha256 == before
    assert len(gallery.snapshot(["general", "probe 17"])) == 2
    gallery.add([exemplar(2)], features(1, 2))  # the entry exists already and joins the general group
    assert len(gallery.snapshot()) == 2
    assert gallery.groups() == {"general": 2, "probe 17": 1}


def test_a_fit_brings_its_snapshot_back_after_the_gallery_has_grown(filled_gallery: tuple[Gallery, np.ndarray]) -> None:
    gallery, _ = filled_gallery
    snapshot = gallery.snapshot()
    name = gallery.write_fit(snapshot, {"mean": np.arange(3.0)}, {"recipe": "default", "b": 0.3})
    assert name == gallery.write_fit(snapshot, {"mean": np.arange(3.0)}, {"b": 0.3, "recipe": "default"})
    gallery.add([exemplar(99)], features(1, 3))
    fit = gallery.read_fit(name)
    again = gallery.snapshot(keys=fit.keys)
    assert (again.sha256, fit.snapshot_sha256) == (snapshot.sha256, snapshot.sha256)
    np.testing.assert_array_equal(again.rows, snapshot.rows)
    np.testing.assert_array_equal(fit.arrays["mean"], np.arange(3.0))
    assert fit.settings == {"recipe": "default", "b": 0.3}
    assert gallery.fits() == [name]


def test_a_fit_that_was_changed_or_whose_entries_are_gone_is_refused(filled_gallery: tuple[Gallery, np.ndarray]) -> None:
    gallery, _ = filled_gallery
    name = gallery.write_fit(gallery.snapshot(), {"mean": np.arange(3.0)}, {})
    flip(block_file(gallery), 0)
    gallery.prune()
    with pytest.raises(BundleError, match="lacks 1 entries"):
        gallery.snapshot(keys=gallery.read_fit(name).keys)
    flip(gallery.folder / "fits" / f"{name}.safetensors", 200)
    with pytest.raises(BundleError, match="was changed or cut short"):
        gallery.read_fit(name)
    with pytest.raises(BundleError, match="cannot be read"):
        gallery.read_fit("0" * 64)
    with pytest.raises(ConfigError, match="64 hexadecimal digits"):
        gallery.read_fit("../gallery")


def test_the_zoo_extractor_gives_a_layout() -> None:
    space = open_space(zoo.bundle(zoo.TEXTURE))
    made = Layout.of(space)
    assert (made.dimension, made.sha256) == (space.extractor.dimension, space.sha256)
