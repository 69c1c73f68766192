"""What captioner and extractor know, from the bundles as they are stored: the zoo's faces, also degraded; nothing else."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from PIL import Image, ImageDraw
from typer.testing import CliRunner

from resynth_fast import Attributor, zoo
from resynth_fast.bundle import MANIFEST, Bundle
from resynth_fast.candidates.engine import EngineCandidate
from resynth_fast.captioners.tagger import Tagger
from resynth_fast.cli.__main__ import app
from resynth_fast.engines.pool import EnginePool
from resynth_fast.errors import BundleError, ConfigError
from resynth_fast.extractors.domain import of_captioner
from resynth_fast.extractors.space import open_space
from resynth_fast.files import pack_arrays, unpack_arrays
from resynth_fast.images import perturbations
from resynth_fast.scoring.domain import FALSE_ALARMS, Domain
from resynth_fast.types import Floats, Pixels

FACES = 32
Outside = Callable[[Pixels], bool]


@pytest.fixture(scope="module", params=["captioner", "extractor"])
def outside(request: pytest.FixtureRequest) -> Outside:
    """Whether a picture is outside what the captioner, or the extractor, knows."""
    if request.param == "captioner":
        known = of_captioner(Tagger(zoo.bundle(zoo.TAGGER), EnginePool(threads=1)))
        assert known is not None
        return known.outside
    space = open_space(zoo.bundle(zoo.TEXTURE))
    domain = space.domain
    assert domain is not None
    return lambda picture: domain.outside(space.features([picture])[0])


@pytest.fixture(scope="module")
def faces(zoo_pool: EnginePool) -> list[Pixels]:
    """Of held-out captions, by every candidate in turn."""
    found: list[Pixels] = []
    for i, bundle in enumerate(zoo.candidates()):
        captions = zoo.prompts()[500 + i : 500 + FACES : 4]
        found += EngineCandidate(bundle, zoo_pool).make(captions, [(1 << 42) + i * 100 + j for j in range(len(captions))], 8)
    return found


def foreign_pictures() -> dict[str, Pixels]:
    """A photograph of a person, a drawing, a screenshot of text, noise, plain colours."""
    rng = np.random.default_rng(0)
    drawing, screenshot = Image.new("RGB", (256, 256), (240, 230, 210)), Image.new("RGB", (320, 320), (255, 255, 255))
    pen = ImageDraw.Draw(drawing)
    pen.ellipse((60, 50, 196, 206), fill=(240, 200, 170), outline=(0, 0, 0), width=4)
    pen.arc((95, 130, 165, 180), 20, 160, fill=(120, 0, 0), width=5)
    for y in range(8, 310, 18):
        ImageDraw.Draw(screenshot).text((8, y), "attribution is evidence, never proof: " * 2, fill=(20, 20, 20))
    waves = np.sin(np.linspace(0, 40, 256))[:, None, None] * np.cos(np.linspace(0, 9, 256))[None, :, None] * [90, 60, 40]
    texture = (128 + waves + rng.normal(0, 12, (256, 256, 3))).clip(0, 255)
    return {
        "drawing": np.asarray(drawing),
        "screenshot": np.asarray(screenshot),
        "noise": rng.integers(0, 256, (128, 128, 3)).astype(np.uint8),
        "plain": np.full((128, 128, 3), (90, 160, 220), np.uint8),
        "black": np.zeros((64, 64, 3), np.uint8),
        "grained waves": texture.astype(np.uint8),
        "photograph": np.asarray(Image.open(Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg").convert("RGB")),
    }


@pytest.mark.parametrize("degradation", ["clean", "jpeg-70", "resize-0.5", "blur-1"])
def test_the_zoos_faces_are_inside_also_when_degraded(outside: Outside, degradation: str, faces: list[Pixels]) -> None:
    change = perturbations.perturbation(degradation) if degradation != "clean" else lambda picture: picture
    assert sum(outside(change(picture)) for picture in faces) <= 1


@pytest.mark.parametrize("name", foreign_pictures())
def test_other_pictures_are_outside(outside: Outside, name: str) -> None:
    assert outside(foreign_pictures()[name])


def test_a_foreign_picture_gets_no_name_a_reason_and_a_way_out(tmp_path: Path) -> None:
    path = tmp_path / "drawing.png"
    Image.fromarray(foreign_pictures()["drawing"]).save(path)
    [verdict] = Attributor.open(references=1, threads=1)([path])
    assert verdict.label is None
    assert verdict.status == "unknown" or "Outside what the captioner knows" in verdict.reason
    for word in ("--captioner", "--extractor", "--gallery"):
        assert any(word in warning for warning in verdict.warnings)


def test_a_face_has_no_such_warning_and_its_own_caption_is_not_questioned() -> None:
    verdicts = Attributor.open(references=1, threads=1)(["examples/07.png"])
    assert not [warning for warning in verdicts[0].warnings if "unlike" in warning]


def rows(seed: int, count: int, shift: float = 0.0) -> Floats:
    """Features on a plane of 6 of 40 dimensions, with some noise."""
    rng = np.random.default_rng(seed)
    plane = np.random.default_rng(99).normal(size=(6, 40))
    return (rng.normal(size=(count, 6)) @ plane + 0.4 * rng.normal(size=(count, 40)) + shift).astype(np.float32)


@pytest.fixture(scope="module")
def fitted() -> Domain:
    return Domain.fit({"clean": rows(0, 300), "moved": rows(1, 100, 3.0)}, {"clean": rows(2, 400), "moved": rows(3, 400, 3.0)})


def test_few_of_the_same_kind_are_outside_and_all_beyond_the_plane_or_far_along_it(fitted: Domain) -> None:
    for kind in (rows(4, 1000), rows(5, 1000, 3.0)):
        assert (fitted.distance(kind) > fitted.limit).mean() < 3 * FALSE_ALARMS
    beyond = rows(6, 100) + np.random.default_rng(7).normal(size=(100, 40)).astype(np.float32)
    for kind in (beyond, rows(8, 100, 9.0), rows(9, 100) * 9):
        assert (fitted.distance(kind) > fitted.limit).mean() > 0.95


def test_distances_are_about_one_for_fitted_pictures_and_survive_storage(fitted: Domain) -> None:
    stored = Domain.restored(unpack_arrays(pack_arrays(fitted.arrays())))
    given = rows(10, 200)
    assert abs(float(np.median(fitted.distance(given))) - 1) < 0.3
    np.testing.assert_allclose(stored.distance(given), fitted.distance(given), rtol=1e-6)
    assert stored.limit == fitted.limit


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda a: {**a, "mean": a["mean"] * np.nan}, "not finite"),
        (lambda a: {name: array for name, array in a.items() if name != "limit"}, "no array limit"),
        (lambda a: {**a, "vectors": a["vectors"].reshape(a["vectors"].shape[::-1]).T}, "not orthogonal"),
        (lambda a: {**a, "scale": a["scale"][:-1]}, "scale is"),
        (lambda a: {**a, "values": a["values"] * 0}, "not above 0"),
    ],
)
def test_a_domain_that_was_damaged_is_refused(fitted: Domain, change: Callable[[Any], Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Domain.restored(change(fitted.arrays()))


def test_a_bundle_without_a_domain_works_and_says_what_it_cannot_notice(tmp_path: Path) -> None:
    folder = tmp_path / "tagger"
    shutil.copytree(zoo.FOLDER / "tagger", folder)
    shutil.copytree(zoo.FOLDER / "objects", tmp_path / "objects")
    manifest = json.loads((folder / MANIFEST).read_text())
    del manifest["domain"]
    (folder / MANIFEST).write_text(json.dumps(manifest))
    attributor = Attributor.open(["zoo:"], captioner=str(folder), references=1, threads=1)
    assert [notice for notice in attributor.notices() if "captioner tagger does not say which pictures it knows" in notice]
    assert Attributor.open(threads=1).notices() == []
    manifest["domain"] = {"file": "domain.safetensors", "sha256": Bundle.open(zoo.FOLDER / "tagger").domain.sha256, "working_size": 96}  # type: ignore[union-attr]
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="columns"):
        Attributor.open(["zoo:"], captioner=str(folder), threads=1)


def test_doctor_says_what_fits_the_candidates_and_what_to_bring(tmp_path: Path) -> None:
    def doctor(*arguments: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(CliRunner().invoke(app, ["doctor", "--json", *arguments], catch_exceptions=False).stdout)
        return found

    zoo_alone = doctor()
    assert zoo_alone["does not fit"] == []
    assert "--captioner" in zoo_alone["captioner"]
    assert "--gallery" in zoo_alone["extractor"]
    others = doctor("-c", "acme=https://acme.example", "-c", "zoo:zoo-sd")
    assert "none is named" in others["calibration"]
    for word in ("drawn face", "--captioner", "--extractor", "resynth calibrate"):
        assert any(word in line for line in others["does not fit"])


def test_perturbations_joined_by_plus_are_made_in_turn() -> None:
    picture = foreign_pictures()["drawing"]
    halved = perturbations.perturbation("resize-0.5")(picture)
    joined = perturbations.perturbation("resize-0.5+jpeg-70+crop-0.9")(picture)
    assert np.array_equal(joined, perturbations.perturbation("crop-0.9")(perturbations.perturbation("jpeg-70")(halved)))
    with pytest.raises(ConfigError, match="perturbation is 'sharpen-1'"):
        perturbations.perturbation("jpeg-70+sharpen-1")
