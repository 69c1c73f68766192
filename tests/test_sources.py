"""Sources that cannot be run: whom their own calibration names, and whom not; from features of known structure, and from pictures."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gaussian_pictures import CONSTANTS, world
from PIL import Image, ImageFilter

from resynth_fast import Attributor, images
from resynth_fast.errors import BundleError, ConfigError
from resynth_fast.evaluation.fitting import fit
from resynth_fast.gallery import Entry, Gallery, Layout
from resynth_fast.images import digest
from resynth_fast.kernels.similarity import Scores
from resynth_fast.resynthesis.source_judgement import cached
from resynth_fast.scoring.calibration import UNCALIBRATED, Calibration
from resynth_fast.scoring.decision import Decision, decide
from resynth_fast.scoring.sources import LEAST_PICTURES, SourceModel, Sources, content_groups
from resynth_fast.types import Doubles, Integers


def pictures(seed: int, spread: float) -> tuple[Doubles, Integers, Integers]:
    """Scaled pictures of four sources, 30 of each, one for each of 30 prompts; 40 prompts, the last ten to be probes."""
    x, g, p = world(seed, generators=4, prompts=40, copies=1, spread=spread, content=1.0)
    return CONSTANTS.scaled(x), g, p


def decisions(model: SourceModel, calibration: Calibration, x: Doubles) -> list[Decision]:
    judged = model(x[:, None])
    rows = [Scores(judged.scores[i : i + 1], judged.consistency[i : i + 1]) for i in range(len(x))]
    return [decide(row, calibration.at(1, 0), measured=calibration.measured) for row in rows]


def shares(known: Sequence[int], spread: float, seeds: int = 6) -> tuple[float, float, float]:
    """Shares of fresh pictures by known sources that are named rightly and wrongly, and of other sources' that are named."""
    right, wrong, strangers = [], [], []
    for seed in range(seeds):
        x, g, p = pictures(seed, spread)
        given, probes = np.isin(g, known) & (p < 30), p >= 30
        source = np.searchsorted(known, g[given])
        calibration = Sources(CONSTANTS, x[given], source, p[given]).calibration()
        stored = Calibration.from_json(json.loads(json.dumps(calibration.to_json())), "x")
        model = SourceModel.of(CONSTANTS, x[given], source)
        own = probes & np.isin(g, known)
        for decision, truth in zip(decisions(model, stored, x[own]), np.searchsorted(known, g[own]), strict=True):
            right.append(decision.status == "attributed" and decision.order[0] == truth)
            wrong.append(decision.status == "attributed" and decision.order[0] != truth)
        strangers += [d.status == "attributed" for d in decisions(model, stored, x[probes & ~np.isin(g, known)])]
    return float(np.mean(right)), float(np.mean(wrong)), float(np.mean(strangers))


@pytest.mark.parametrize("spread", [0.2, 0.34, 0.6])
def test_three_sources_are_rarely_named_wrongly_and_strangers_seldom(spread: float) -> None:
    right, wrong, strangers = shares((0, 1, 2), spread)
    assert wrong <= 0.05
    assert strangers <= 0.15
    if spread > 0.5:
        assert right >= 0.35


@pytest.mark.parametrize("spread", [0.34, 0.6])
def test_of_two_sources_a_withheld_third_is_seldom_taken_for_one(spread: float) -> None:
    _, wrong, strangers = shares((0, 1), spread)
    assert wrong <= 0.05
    assert strangers <= 0.15


def test_without_a_difference_nobody_is_named_often() -> None:
    """Sources that do not differ: whoever is named is named by chance."""
    right, wrong, _ = shares((0, 1, 2), 0.0)
    assert right + wrong <= 0.1


@pytest.mark.parametrize(
    ("counts", "prompts", "reason"),
    [
        ((20, LEAST_PICTURES - 1), 20, "7 pictures of a source"),
        ((20,), 20, "a single source"),
        ((20, 20), 1, "all pictures of a source are of one prompt"),
    ],
)
def test_too_little_is_no_calibration_and_says_why(counts: tuple[int, ...], prompts: int, reason: str) -> None:
    source = np.repeat(np.arange(len(counts)), counts)
    x = np.random.default_rng(0).normal(size=(len(source), len(CONSTANTS.mean)))
    calibration = Sources(CONSTANTS, x, source, np.arange(len(source)) % prompts).calibration()
    assert not calibration.measured
    assert reason in calibration.source


def test_copies_of_a_picture_and_pictures_of_one_prompt_are_left_out_together() -> None:
    rng = np.random.default_rng(1)
    x, source = rng.normal(size=(60, 48)), np.arange(60) % 2
    x[30:] = x[:30] + rng.normal(size=(30, 48)) * 1e-3  # near copies
    groups = content_groups(x, source)
    assert (groups[:30] == groups[30:]).all()
    assert np.bincount(groups).max() <= 6
    folds = Sources(CONSTANTS, x, source, groups).folds()
    assert (folds[:30] == folds[30:]).all()
    assert set(folds) == set(range(5))
    assert np.ptp(np.bincount(folds)) <= 6
    assert len(set(content_groups(np.zeros((20, 4)), np.zeros(20, np.int64)))) == 1


def test_a_score_does_not_depend_on_other_probes_and_a_copy_of_a_source_changes_no_comparison() -> None:
    x, g, _ = pictures(3, 0.4)
    model = SourceModel.of(CONSTANTS, x, g)
    together, alone = model(x[:5, None]), model(x[2:3, None])
    np.testing.assert_array_equal(together.scores[2], alone.scores[0])
    assert together.consistency[2, 0] == alone.consistency[0, 0]


def test_a_stored_calibration_is_used_and_a_damaged_one_measured_again(tmp_path: Path) -> None:
    path, measured = tmp_path / "new" / "a.json", Calibration(UNCALIBRATED.points, "measured here")
    assert cached(path, lambda: measured) == measured
    assert cached(path, pytest.fail) == measured
    path.write_text("{")
    assert cached(path, lambda: measured) == measured
    assert cached(path, pytest.fail) == measured


# Pictures


@pytest.fixture(scope="module")
def folders(exemplar_folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three sources, ten pictures of each, and probes/: the rest. The third is the zoo's pictures after a strong filter."""
    root = tmp_path_factory.mktemp("sources")
    files = {name: sorted((exemplar_folders / name).iterdir()) for name in ("zoo-flux", "zoo-sd-v")}
    for name, change in (("flux", 0), ("sdv", 0), ("filtered", 1)):
        source = files["zoo-flux" if name == "flux" else "zoo-sd-v"]
        for i, path in enumerate(source):
            image = Image.open(path)
            if change:
                image = image.filter(ImageFilter.MedianFilter(5))
            folder = root / (name if i < 10 else "probes") / f"prompt {i}"
            folder.mkdir(parents=True, exist_ok=True)
            large = image.resize((256, 256), Image.Resampling.BICUBIC)
            buffer = io.BytesIO()
            large.save(buffer, "JPEG", quality=92)
            (folder / f"{name}.jpg").write_bytes(buffer.getvalue())
    return root


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The cache folder of these tests: a calibration takes seconds, and several tests need the same."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("resynth_fast.files.user_cache", lambda: folder)
        yield folder


@pytest.fixture(scope="module")
def gallery(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The three sources in a gallery, with their prompts."""
    folder = tmp_path_factory.mktemp("gallery") / "g"
    space = Attributor.open(threads=1).space
    with Gallery.create(folder, Layout.of(space)) as store:
        for name in ("flux", "sdv", "filtered"):
            files = sorted((folders / name).rglob("*.jpg"))
            entries = [Entry(generator=name, picture_sha256=digest(path), prompt=path.parent.name) for path in files]
            store.add(entries, space.features([images.read(path).pixels for path in files]))
    return folder


def test_the_generators_of_a_gallery_are_the_candidates_and_the_zoo_is_not(gallery: Path, folders: Path, cache: Path) -> None:
    attributor = Attributor.open(gallery=gallery, threads=1)
    assert list(attributor.candidates) == ["filtered", "flux", "sdv"]
    own = sorted((folders / "filtered").rglob("*.jpg"))
    verdicts = attributor([*own, *sorted((folders / "probes").rglob("*.jpg"))])
    assert {candidate.name for verdict in verdicts for candidate in verdict.candidates} == {"filtered", "flux", "sdv"}
    assert all(v.label in (None, "filtered") for v in verdicts[: len(own)])
    assert sum(v.candidates[0].name == "filtered" for v in verdicts[: len(own)]) >= 8
    assert all(v.reason for v in verdicts if v.status != "attributed")
    assert all((v.caption, v.captioner) == ("", "") for v in verdicts)  # nothing is resynthesised, so nothing is captioned
    assert [c.pictures for c in verdicts[0].candidates] == [10, 10, 10]
    assert list(Attributor.open(["gallery:flux", "gallery:sdv"], gallery=gallery, threads=1).candidates) == ["flux", "sdv"]


def test_a_gallery_and_the_folders_it_was_made_from_judge_alike(gallery: Path, folders: Path, cache: Path) -> None:
    names = ["filtered", "flux", "sdv"]
    probe = folders / "probes" / "prompt 11" / "flux.jpg"
    [one] = Attributor.open(gallery=gallery, threads=1)([probe])
    [other] = Attributor.open([f"{name}={folders / name}" for name in names], threads=1)([probe])
    assert [c.name for c in one.candidates] == [c.name for c in other.candidates]
    np.testing.assert_allclose([c.score for c in one.candidates], [c.score for c in other.candidates], rtol=1e-9)
    assert [c.bundle for c in one.candidates] == [c.bundle for c in other.candidates]


def test_a_known_picture_is_judged_without_the_pictures_of_its_prompt(gallery: Path, folders: Path, cache: Path) -> None:
    attributor = Attributor.open(gallery=gallery, threads=1)
    alone = attributor.references.exemplars.alone
    assert alone
    [path] = (folders / "flux" / "prompt 4").iterdir()
    prepared = attributor.prepare([path])
    prompts = np.array([int(prompt.split()[1]) for prompt in alone._prompts if prompt])
    fold = alone._folds[prompts == 4][0]
    assert (alone._folds[prompts == 4] == fold).all()
    points = attributor.space.constants.scaled(prepared.probes[0].features[None])
    expected = alone.sources.without(alone._folds == fold)(points[None])
    np.testing.assert_array_equal(alone(prepared.probes).scores[0, 0], expected.scores[0, 0])
    by_caption = Attributor.open(gallery=gallery, caption="text:prompt 4", threads=1)
    stranger = by_caption.prepare([folders / "probes" / "prompt 11" / "sdv.jpg"])
    points = attributor.space.constants.scaled(stranger.probes[0].features[None])
    expected = alone.sources.without(alone._folds == fold)(points[None])
    np.testing.assert_array_equal(alone(stranger.probes).scores[0, 0], expected.scores[0, 0])


def test_one_source_and_one_source_twice_are_never_named(folders: Path, cache: Path) -> None:
    probe = [folders / "probes" / "prompt 11" / "flux.jpg"]
    [verdict] = Attributor.open([f"a={folders / 'flux'}"], threads=1)(probe)
    assert (verdict.status, verdict.label) == ("inconclusive", None)
    assert "single candidate" in verdict.reason
    [verdict] = Attributor.open([f"a={folders / 'flux'}", f"b={folders / 'flux'}"], threads=1)(probe)
    assert verdict.status == "inconclusive"
    assert "under two names" in verdict.reason
    attributor = Attributor.open([f"a={folders / 'flux'}", f"b={folders / 'flux'}", f"c={folders / 'sdv'}"], threads=1)
    [verdict] = attributor(probe)
    assert verdict.status == "inconclusive"
    assert "given for two sources" in str(verdict.provenance["calibration"])


def test_a_calibration_is_kept_and_depends_on_the_pictures_and_their_prompts(gallery: Path, cache: Path) -> None:
    names = ["gallery:filtered", "gallery:sdv"]
    first = Attributor.open(names, gallery=gallery, threads=1).references.calibration
    kept = max((cache / "sources").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    changed = json.loads(kept.read_text())
    changed["points"][0]["temperature"] = 123.0
    kept.write_text(json.dumps(changed))
    assert Attributor.open(names, gallery=gallery, threads=1).references.calibration.points[0].temperature == 123.0
    other = Attributor.open(["gallery:flux", "gallery:filtered"], gallery=gallery, threads=1).references.calibration
    assert other.points[0].temperature != 123.0
    assert first.measured
    with Gallery.open(gallery) as store:
        rows = [entry.row for entry in store.select(generator="sdv")]
        before = {entry.row: entry.prompt for entry in store.select(generator="sdv")}
        assert store.set_prompt(rows[:1], "another") == 1
        assert Attributor.open(names, gallery=gallery, threads=1).references.calibration.points[0].temperature != 123.0
        assert store.set_prompt(rows[:1], before[rows[0]]) == 1
    assert Attributor.open(names, gallery=gallery, threads=1).references.calibration.points[0].temperature == 123.0


@pytest.mark.parametrize(
    ("candidates", "options", "message"),
    [
        (["gallery:nobody"], {}, r"has no pictures of 'nobody'; it has filtered, flux, sdv"),
        (["gallery:flux", "zoo:"], {}, r"candidate flux is of a gallery, which holds features and no pictures"),
        (["gallery:"], {"policy": "both"}, r"policy is 'both', but candidates gallery: generate nothing"),
        (["zoo:"], {}, r"has no fit for candidates that generate; .* --candidates gallery:"),
    ],
)
def test_a_gallery_that_does_not_fit_the_candidates_names_the_way_out(
    gallery: Path, cache: Path, candidates: list[str], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        Attributor.open(candidates, gallery=gallery, threads=1, **options)


def test_a_fit_that_lacks_candidates_is_not_applied(gallery: Path, folders: Path, cache: Path) -> None:
    space = Attributor.open(threads=1).space
    with Gallery.open(gallery) as store:
        sha256 = fit(store, space).sha256
    try:
        with pytest.raises(ConfigError, match=r"knows filtered, flux, sdv and none of the candidates \(zoo-flux, .* --candidates gallery:"):
            Attributor.open(["zoo:"], gallery=gallery, threads=1)
        with pytest.raises(ConfigError, match=r"is prior knowledge of candidates that generate, and none of these does"):
            Attributor.open([f"a={folders / 'flux'}"], gallery=gallery, fit=sha256, threads=1)
        assert len(Attributor.open(gallery=gallery, fit=sha256, threads=1).candidates) == 3
    finally:
        (gallery / "fits" / f"{sha256}.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"name its folder with --gallery"):
        Attributor.open(["gallery:"], threads=1)


def test_a_source_whose_pictures_are_all_of_the_probes_prompt_is_an_error(gallery: Path, folders: Path, cache: Path) -> None:
    attributor = Attributor.open(gallery=gallery, threads=1)
    alone = attributor.references.exemplars.alone
    assert alone
    alone._prompts = ["prompt 1" if source == 0 else prompt for source, prompt in zip(alone.sources.source, alone._prompts, strict=True)]
    prepared = Attributor.open(gallery=gallery, caption="text:prompt 1", threads=1).prepare([folders / "probes" / "prompt 11" / "sdv.jpg"])
    with pytest.raises(BundleError, match="candidate filtered has no picture but the probe and others of its prompt"):
        alone(prepared.probes)
