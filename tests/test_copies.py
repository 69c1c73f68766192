"""The very file and near copies: what is found, what is not, and that the verdict by the pixels does not use it."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest
import scipy.fft
from PIL import Image
from sample_records import answered, sha256
from typer.testing import CliRunner

from resynth_fast import Attributor, images
from resynth_fast.cli.__main__ import app
from resynth_fast.gallery import Gallery
from resynth_fast.images import copies, perturbations
from resynth_fast.images.copies import MAX_DISTANCE, SIGNATURE_BYTES, GivenPicture, GivenPictures, Match, named, signature, windows
from resynth_fast.report import page, record
from resynth_fast.types import KnownCopy, Pixels

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.png"))


def drawn() -> list[Pixels]:
    return [images.read(path).pixels for path in EXAMPLES]


def enlarged(side: int) -> list[Image.Image]:
    return [Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC) for pixels in drawn()]


def given(pictures: list[Pixels], generator: str = "A") -> GivenPictures:
    return GivenPictures(
        GivenPicture(row=i, generator=generator, file=f"{i}.png", sha256=f"{i:064x}", signature=signature(pixels))
        for i, pixels in enumerate(pictures)
    )


def matches(found: GivenPictures, pixels: Pixels) -> list[int]:
    return [match.row for match in found("none", windows(pixels))]


def test_the_hash_is_phash_bit_for_bit() -> None:
    for pixels in drawn():
        grey = np.asarray(Image.fromarray(pixels).convert("L").resize((64, 64), Image.Resampling.LANCZOS), float)
        low = scipy.fft.dctn(grey)[:16, :16]
        assert signature(pixels)[:32] == np.packbits(low > np.median(low)).tobytes()


@pytest.mark.parametrize(
    "name", ["jpeg-90", "jpeg-70", "jpeg-50", "webp-80", "resize-0.5", "resize-0.75", "resize-2", "crop-0.98", "blur-1"]
)
def test_a_near_copy_is_found_and_nothing_else(name: str) -> None:
    pictures = [np.asarray(image) for image in enlarged(256)]
    known = given(pictures)
    assert [matches(known, perturbations.perturbation(name)(pixels)) for pixels in pictures] == [[i] for i in range(len(pictures))]


@pytest.mark.parametrize(("left", "top", "right", "bottom"), [(2, 2, 0, 0), (0, 0, 2, 2), (-2, 0, 0, -2), (-1, -1, -1, -1)])
def test_a_crop_of_two_percent_is_found_whichever_of_the_two_is_cropped(left: int, top: int, right: int, bottom: int) -> None:
    """Percent cut off each side of the probe; where negative, off the given picture."""
    large = enlarged(400)

    def cut(sides: tuple[int, ...]) -> list[Pixels]:
        start, above, end, below = (4 * max(side, 0) for side in sides)
        return [np.asarray(image.crop((start, above, 400 - end, 400 - below))) for image in large]

    known = given(cut((-left, -top, -right, -bottom)))
    assert [matches(known, pixels) for pixels in cut((left, top, right, bottom))] == [[i] for i in range(len(large))]


def test_drawings_of_one_style_are_no_copies_of_each_other(exemplar_folders: Path) -> None:
    pictures = [images.read(path).pixels for path in sorted(exemplar_folders.rglob("*.png"))]
    assert len(pictures) == 24
    known = given(pictures)
    assert [matches(known, pixels) for pixels in pictures] == [[i] for i in range(24)]


def test_colours_tell_apart_what_the_hash_does_not() -> None:
    [pixels] = drawn()[:1]
    other = np.asarray(Image.fromarray(pixels).convert("YCbCr")).copy()
    other[..., 1:] = 255 - other[..., 1:]
    other = np.asarray(Image.fromarray(other, "YCbCr").convert("RGB"))
    hashes = [np.unpackbits(np.frombuffer(signature(picture)[:32], np.uint8)) for picture in (pixels, other)]
    assert (hashes[0] != hashes[1]).sum() <= MAX_DISTANCE
    assert matches(given([pixels]), pixels) == [0]
    assert matches(given([pixels]), other) == []


def test_flat_pictures_are_only_known_by_their_hash() -> None:
    flat = np.full((64, 64, 3), 127, np.uint8)
    assert signature(flat) == b""
    known = given([flat])
    assert matches(known, flat) == []
    assert [match.copy.kind for match in known(f"{0:064x}", windows(flat))] == ["same file"]


def test_matches_are_exactly_those_within_the_distance() -> None:
    """A probe of one window among thousands of signatures, with copies planted at the greatest distance and one bit beyond."""
    rng = np.random.default_rng(3)
    stored = rng.integers(0, 256, (3000, SIGNATURE_BYTES), np.uint8)
    probe = stored[7].copy()
    for row, bits in ((700, MAX_DISTANCE), (701, MAX_DISTANCE + 1)):
        flipped = np.zeros(256, np.uint8)
        flipped[rng.permutation(256)[:bits]] = 1
        stored[row] = probe
        stored[row, :32] ^= np.packbits(flipped)
    stored[702] = probe
    stored[702, 32:] ^= 8  # every colour 8 grey levels away
    known = GivenPictures(
        GivenPicture(row=2 * i, generator="A", file="f", sha256=f"{i:064x}", signature=content.tobytes())
        for i, content in enumerate(stored)
    )
    assert [(match.row, match.copy.distance) for match in known("none", probe[None])] == [(14, 0), (1400, MAX_DISTANCE)]
    assert [match.copy.kind for match in known(f"{700:064x}", probe[None])] == ["same file", "near copy"]


def test_every_generator_is_named_however_many_copies_another_has() -> None:
    found = [Match(i, KnownCopy("A", f"{i}.png", "", "near copy", i)) for i in range(9)]
    found.append(Match(9, KnownCopy("B", "b.png", "", "near copy", 16)))
    found.append(Match(10, KnownCopy("A", "same.png", "", "same file", 0)))
    assert [(copy.generator, copy.file) for copy in named(found)] == [("A", "same.png"), ("A", "0.png"), ("A", "1.png"), ("B", "b.png")]


@pytest.fixture
def folders(exemplar_folders: Path, tmp_path: Path) -> dict[str, Path]:
    for name, source in (("A", "zoo-flux"), ("B", "zoo-sd-v")):
        shutil.copytree(exemplar_folders / source, tmp_path / name)
    return {name: tmp_path / name for name in "AB"}


def attributor(folders: dict[str, Path], **options: object) -> Attributor:
    return Attributor.open([f"{name}={folder}" for name, folder in folders.items()], references=4, threads=1, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["same file", "near copy"])
def test_copies_are_named_and_the_pixels_are_judged_without_them(folders: dict[str, Path], tmp_path: Path, kind: str) -> None:
    source = folders["A"] / "03.png"
    probe = tmp_path / "probe.jpg"
    if kind == "same file":
        probe.write_bytes(source.read_bytes())
    else:
        Image.open(source).save(probe, quality=70)
    asked = attributor(folders)
    [verdict] = asked([probe])
    [copy] = verdict.known_copies
    assert (copy.generator, copy.file, copy.kind) == ("A", str(source), kind)
    assert copy.sha256 == images.digest(source)
    given = images.read(source).pixels
    assert not any(np.array_equal(given, shown) for c in verdict.candidates for shown in c.exemplars)
    alone = asked.references.exemplars.alone
    assert alone
    left_out = np.isin(alone._folds, alone._folds[alone._hashes.index(copy.sha256)])  # it, and the pictures of like content
    points = asked.space.constants.scaled(asked.prepare([probe]).probes[0].features[None])
    expected = alone.sources.without(left_out)(points[None]).scores[0, 0]
    assert {c.name: c.score for c in verdict.candidates} == dict(zip("AB", expected, strict=True))


def test_a_picture_given_for_two_sources_names_both(folders: dict[str, Path], tmp_path: Path) -> None:
    shutil.copy(folders["A"] / "03.png", folders["B"] / "also.png")
    [verdict] = attributor(folders)([folders["A"] / "03.png"])
    assert {(copy.generator, copy.kind) for copy in verdict.known_copies} == {("A", "same file"), ("B", "same file")}
    assert verdict.warnings[0] == "this picture was given as A and as B; at least one of the labels is wrong"
    shown = record.of("x", verdict, "", "", "", 1)
    assert record.copies_sentence(shown) == "This very file was given as A and as B"


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.output


def test_a_gallery_finds_near_copies_of_what_was_added(folders: dict[str, Path], tmp_path: Path) -> None:
    gallery, probe, source = tmp_path / "g", tmp_path / "probe.jpg", folders["A"] / "03.png"
    Image.open(source).save(probe, quality=80)
    assert run("gallery", "add", "maker", source, "--gallery", gallery)[0] == 0
    source.unlink()

    def found(picture: Path) -> list[tuple[str, str, str]]:
        [verdict] = attributor(folders, gallery=gallery, policy="both")([picture])
        return [(copy.generator, copy.file, copy.kind) for copy in verdict.known_copies]

    assert found(probe) == [("maker", "entry 0 of g", "near copy")]


def test_a_gallery_from_before_signatures_is_used_as_it_is_and_adding_again_completes_it(folders: dict[str, Path], tmp_path: Path) -> None:
    folder, source, copy = tmp_path / "g", folders["A"] / "03.png", tmp_path / "copy.png"
    shutil.copy(source, copy)
    run("gallery", "add", "maker", source, "--gallery", folder)
    with sqlite3.connect(folder / "index.sqlite") as index:
        index.execute("DROP TABLE signature")  # as earlier versions wrote it
    index.close()
    pixels = images.read(copy).pixels

    def found() -> list[list[str]]:
        with Gallery.open(folder) as gallery:
            assert gallery.verify() == []
            stored = gallery.given()
        return [[match.copy.kind for match in stored(hash_, windows(pixels))] for hash_ in ("none", images.digest(copy))]

    assert found() == [[], ["same file"]]
    assert "near copies of 1 pictures cannot be found" in run("gallery", "list", "--gallery", folder)[1]
    assert "1 in the gallery already" in run("gallery", "add", "maker", source, "--gallery", folder)[1]
    assert found() == [["near copy"], ["same file"]]
    assert "cannot be found" not in run("gallery", "list", "--gallery", folder)[1]


def test_a_stored_signature_of_another_version_is_replaced(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, source = tmp_path / "g", folders["A"] / "03.png"
    run("gallery", "add", "maker", source, "--gallery", folder)
    monkeypatch.setattr(copies, "VERSION", copies.VERSION + 1)
    with Gallery.open(folder) as gallery:
        assert [picture.signature for picture in gallery.given().pictures] == [b""]
    run("gallery", "add", "maker", source, "--gallery", folder)
    with Gallery.open(folder) as gallery:
        assert [picture.signature for picture in gallery.given().pictures] == [signature(images.read(source).pixels)]


def test_monitors_can_ask_for_known_copies(folders: dict[str, Path], tmp_path: Path) -> None:
    candidates = [part for name, folder in folders.items() for part in ("-c", f"{name}={folder}")]
    source = folders["A"] / "03.png"
    command = ["attribute", source, *candidates, "--threads", 1]
    code, text = run(*command)
    assert (code, "This very file was given as A. By its pixels: " in text) == (0, True)
    assert run(*command, "--fail-on", "known-copy", "--format", "csv")[0] == 1
    code, text = run(*command, "--format", "json")
    [copy] = json.loads(text)["records"][0]["known_copies"]
    assert copy == {"generator": "A", "file": str(source), "sha256": images.digest(source), "kind": "same file", "distance": 0}
    shutil.copy(source, tmp_path / "new.png")
    source.unlink()
    assert run("attribute", tmp_path / "new.png", *command[2:], "--fail-on", "known-copy")[0] == 0
    outcome = CliRunner().invoke(app, ["attribute", str(tmp_path / "new.png"), "--fail-on", "known"])
    assert "it must be attributed, inconclusive, unknown, known-copy" in str(outcome.exception)


def test_the_page_says_first_where_the_picture_was_seen() -> None:
    copy = KnownCopy("acme <b>", "in/b.png", sha256("b"), "near copy", 4)
    one = answered() | {"known_copies": [dataclasses.asdict(copy)]}
    html = page.render([one], [{"probe": None, "resyntheses": {}}])
    order = [
        "A near copy of b.png, given as acme &lt;b&gt;</h2>",
        "4 of 256 bits differ",
        "By its pixels: Most consistent with",
        '<dl class="figures">',
    ]
    assert sorted(order, key=html.index) == order
    assert "known_copies" not in html
    plain = page.render([answered()], [{"probe": None, "resyntheses": {}}])
    assert "By its pixels" not in plain
    assert "seen before" not in plain
