"""Generators calibrate themselves by their own pictures: nobody is named before, they are named after, with honest figures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from resynth_fast import Attributor, zoo
from resynth_fast.bundle import Bundle
from resynth_fast.candidates.engine import EngineCandidate
from resynth_fast.cli.__main__ import app
from resynth_fast.engines.pool import EnginePool
from resynth_fast.evaluation import generators
from resynth_fast.resynthesis import own_calibration
from resynth_fast.scoring.calibration import Calibration, CalibrationPoint, fit_point

NAMES = ("zoo-flux", "zoo-sd-v")
STEPS, REFERENCES = 4, 2
SETTINGS = ["--steps", str(STEPS), "--references", str(REFERENCES), "--threads", "1"]


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two generators under other names, and so of other hashes: somebody else's."""
    root = tmp_path_factory.mktemp("theirs")
    shutil.copytree(zoo.FOLDER / "objects", root / "objects")
    for name in NAMES:
        manifest = json.loads((zoo.FOLDER / name / "bundle.json").read_text())
        (root / f"my-{name}").mkdir()
        (root / f"my-{name}" / "bundle.json").write_text(json.dumps({**manifest, "name": f"my-{name}"}))
    return root


@pytest.fixture(scope="module")
def probes(theirs: Path) -> list[Path]:
    """Six pictures of each, of held-out captions."""
    paths = []
    for i, name in enumerate(NAMES):
        candidate = EngineCandidate(Bundle.open(theirs / f"my-{name}"), EnginePool(threads=1))
        for j, pixels in enumerate(candidate.make(zoo.prompts()[60 + 6 * i : 66 + 6 * i], [(1 << 43) + 6 * i + j for j in range(6)], 20)):
            paths.append(theirs / f"my-{name}" / f"{j}.png")
            Image.fromarray(pixels).save(paths[-1])
    return paths


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)


def test_somebody_elses_generators_are_named_only_after_they_were_calibrated(
    theirs: Path, probes: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    options: dict[str, Any] = {"references": REFERENCES, "steps": STEPS, "threads": 1}
    before = Attributor.open([str(theirs)], **options)(probes)
    assert {verdict.status for verdict in before} == {"inconclusive"}
    assert all("`resynth calibrate`" in verdict.reason for verdict in before)
    assert all(any("zoo's captioner" in warning for warning in verdict.warnings) for verdict in before)

    forecast = run("calibrate", "-c", theirs, *SETTINGS, "--probes", 20, "--forecast")
    assert "at most 100 pictures" in forecast.stderr
    assert not own_calibration.folder().exists()

    result = run("calibrate", "-c", theirs, *SETTINGS, "--probes", 20, "--probe-steps", 8, "--json")
    figures = json.loads(result.stdout)["references"]
    assert set(figures) == {"1", "2"}
    assert figures["2"]["clean"]["right"] > 0.7

    after = Attributor.open([str(theirs)], **options)(probes)
    named = [(verdict.label, path.parent.name) for verdict, path in zip(after, probes, strict=True) if verdict.label]
    assert len(named) >= 4
    assert sum(label != truth for label, truth in named) <= 1
    assert "by the candidates themselves" in str(after[0].provenance["calibration"])

    assert "measured before" in run("calibrate", "-c", theirs, *SETTINGS, "--probes", 20).stderr
    elsewhere = Attributor.open([str(theirs), "zoo:zoo-sd"], **options)([probes[0]])
    assert elsewhere[0].status == "inconclusive"  # a third candidate was not measured
    assert Attributor.open([str(theirs)], **(options | {"steps": 8}))([probes[0]])[0].status == "inconclusive"


def test_the_zoos_own_calibration_holds_for_its_candidates_and_for_any_two_of_them() -> None:
    everything = Attributor.open(threads=1)
    assert set(everything.space.calibration.candidates) == {bundle.sha256 for bundle in zoo.candidates()}
    assert everything.references.calibration.measured
    assert Attributor.open([f"zoo:{name}" for name in NAMES], threads=1).references.calibration.measured
    assert not Attributor.open(["zoo:zoo-flux", "zoo:zoo-withheld"], threads=1).references.calibration.measured


def test_a_calibration_of_fewer_candidates_is_preferred_and_a_broken_file_is_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    attributor = Attributor.open(threads=1)
    parts = attributor.captioner, attributor.space, attributor.options
    for source, identities in (("three", ("a", "b", "c")), ("two", ("a", "b"))):
        own_calibration.store(Calibration((CalibrationPoint(1, 8, 2.0, 0.1),), source, candidates=identities), *parts)
    (own_calibration.folder() / "broken.json").write_text("{")
    found = own_calibration.find(["b", "a"], *parts)
    assert found is not None
    assert found.source == "two"
    assert own_calibration.find(["a"], *parts) is None
    assert own_calibration.find(["a", "d"], *parts) is None


def test_copies_of_a_probe_count_as_one() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 18)
    scores = rng.normal(size=(18, 3)) + 3 * np.eye(3)[truth]
    often = fit_point(1, 8, np.repeat(scores, 10, axis=0), np.ones(180), np.repeat(truth, 10), copies=10)
    assert often.attributed_from > 1  # 18 probes show no error rate of 5 %, however often each is copied
    assert fit_point(1, 8, np.repeat(scores, 10, axis=0), np.ones(180), np.repeat(truth, 10)).attributed_from <= 1


def test_prompts_are_the_taggers_own_or_general_and_never_held_out_ones() -> None:
    attributor = Attributor.open(threads=1)
    texts = generators.prompts(attributor, 60)
    assert len(set(texts)) == 60
    assert not set(texts) & set(zoo.prompts())
    general = generators.CAPTIONS.read_text().splitlines()
    assert len(set(general)) == len(general) >= 60


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-c", "zoo:zoo-sd", "--probes", 20), "at least 2 candidates"),
        (("-c", "zoo:", "--probes", 8), "at least 2 candidates and 19 probes"),
    ],
)
def test_what_cannot_be_calibrated_is_refused_before_anything_is_generated(
    arguments: tuple[Any, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    result = CliRunner().invoke(app, ["calibrate", *map(str, arguments), "--again", "--threads", "1"])
    assert said in str(result.exception)
