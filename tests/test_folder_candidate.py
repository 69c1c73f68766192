"""Candidates that are folders of exemplars."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from resynth_fast import Attributor, images
from resynth_fast.candidates import find
from resynth_fast.candidates.folder import Exemplars
from resynth_fast.engines.pool import EnginePool
from resynth_fast.errors import BundleError, ConfigError
from resynth_fast.images.copies import GivenPictures
from resynth_fast.report import page as report
from resynth_fast.report.batch import run
from resynth_fast.resynthesis.executor import Executor
from resynth_fast.types import Pixels, Request


@pytest.fixture(scope="module")
def mixed(exemplar_folders: Path) -> Attributor:
    """Pictures of one zoo generator beside two others that can be run."""
    return Attributor.open([f"acme={exemplar_folders / 'zoo-flux'}", "zoo:zoo-sd", "zoo:zoo-sd-v"], references=2, steps=4, threads=1)


def test_candidates_that_are_all_folders_are_told_apart_by_their_exemplars(tmp_path: Path) -> None:
    """A grainy and a smooth source of pictures that show much the same."""
    rng = np.random.default_rng(0)

    def scene(grain: float) -> Image.Image:
        x, y = np.mgrid[0:64, 0:64] / 64
        colour, turn = rng.uniform(60, 190, 3), rng.uniform(0, 6)
        shade = 40 * np.sin(turn + 4 * x + 3 * y)[..., None] + rng.normal(0, grain, (64, 64, 3))
        return Image.fromarray(np.clip(colour + shade, 0, 255).astype(np.uint8))

    for name, grain in (("grainy", 9.0), ("smooth", 1.5)):
        for folder in (name, f"probes-{name}"):
            (tmp_path / folder).mkdir()
            for i in range(10):
                scene(grain).save(tmp_path / folder / f"{i}.png")
    attributor = Attributor.open([f"{name}={tmp_path / name}" for name in ("grainy", "smooth")], references=4, threads=1)
    for name in ("grainy", "smooth"):
        verdicts = attributor(sorted((tmp_path / f"probes-{name}").iterdir()))
        assert sum(v.candidates[0].name == name for v in verdicts) >= 9
        assert all((len(c.resyntheses), len(c.exemplars)) == (0, 4) for v in verdicts for c in v.candidates)


def test_a_folder_wins_its_own_probes_among_generative_candidates(mixed: Attributor, zoo_probes: dict[str, list[Path]]) -> None:
    assert sum(v.candidates[0].name == "acme" for v in mixed(zoo_probes["zoo-flux"])) >= 2
    assert sum(v.candidates[0].name == "zoo-sd-v" for v in mixed(zoo_probes["zoo-sd-v"])) >= 2


def test_the_record_and_the_page_distinguish_exemplars_from_resyntheses(mixed: Attributor, zoo_probes: dict[str, list[Path]]) -> None:
    [result] = run(mixed, [str(zoo_probes["zoo-flux"][0])], lambda done, of: None)
    counts = {c["name"]: (c["resyntheses"], c["references"]) for c in result.record["candidates"]}
    assert counts == {"acme": (0, 12), "zoo-sd": (2, 2), "zoo-sd-v": (2, 2)}
    assert result.record["evidence"]["seeds"] == [0, 1]
    assert result.record["verdict"]["status"] == "inconclusive"
    assert "not calibrated" in result.record["verdict"]["reason"]
    page = report.render([result.record], [result.images])
    assert page.count("exemplar</li>") == 12
    assert "Exemplar 1 of acme" in page
    assert "Resynthesis 1 by acme" not in page
    assert "Resynthesis 2 by zoo-sd" in page


@pytest.mark.parametrize(("others", "references"), [(["zoo:zoo-sd", "zoo:zoo-sd-v"], 1), ([], 12)])
def test_a_probe_is_never_its_own_reference(exemplar_folders: Path, others: list[str], references: int) -> None:
    attributor = Attributor.open(
        [f"acme={exemplar_folders / 'zoo-flux'}", f"other={exemplar_folders / 'zoo-sd-v'}", *others],
        references=references,
        steps=1,
        threads=1,
    )
    probe = exemplar_folders / "zoo-flux" / "03.png"
    [verdict] = attributor([probe])
    acme = next(c for c in verdict.candidates if c.name == "acme")
    pixels = images.read(probe).pixels
    assert len(acme.exemplars) == 11
    assert not any(np.array_equal(given, pixels) for given in acme.exemplars)
    assert [(copy.generator, copy.kind) for copy in verdict.known_copies] == [("acme", "same file")]


def test_exemplars_are_resynthesised_once_and_verdicts_do_not_depend_on_other_probes(
    mixed: Attributor, zoo_probes: dict[str, list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    both = mixed([zoo_probes["zoo-flux"][0], zoo_probes["zoo-sd-v"][0]])
    made: list[int] = []
    original = Executor.__call__

    def counted(self: Executor, requests: list[Request], **rest: float | None) -> dict[Request, Pixels]:
        made.append(len({request.prompt for request in requests}))
        return original(self, requests, **rest)

    monkeypatch.setattr(Executor, "__call__", counted)
    [alone] = mixed([zoo_probes["zoo-sd-v"][0]])
    assert made == [1]  # the probe's own caption, and none of the exemplars'
    np.testing.assert_allclose([c.score for c in both[1].candidates], [c.score for c in alone.candidates], atol=1e-3)


def test_the_nearest_are_nearest_in_content_and_equal_files_count_once(tmp_path: Path, zoo_pool: EnginePool) -> None:
    files = tuple((f"{i:064}", Path(f"{i}.png")) for i in range(4))
    offset = np.array([100.0, 0, 0])  # what the source's pictures have in common
    points = np.array([[0, 1.0, 0], [0, 0, 1.0], [0, -1.0, 0], [0, 0, -1.0]]) + offset
    given = Exemplars("acme", files, points.astype(np.float32), GivenPictures(()))
    chosen = given.nearest(points, np.array([0.0, 5, 1]), 2)
    assert chosen.files == (Path("0.png"), Path("1.png"))
    assert given.nearest(points, np.array([0.0, 5, 1]), 9, {0}).files[0] == Path("1.png")
    Image.new("RGB", (64, 64), "red").save(tmp_path / "b.png")
    (tmp_path / "sub").mkdir()
    for name in ("a.png", "sub/c.png"):
        (tmp_path / name).write_bytes((tmp_path / "b.png").read_bytes())
    [candidate] = find([f"acme={tmp_path}"], zoo_pool)
    assert list(candidate.files.values()) == [tmp_path / "a.png"]


def test_the_hash_of_a_folder_is_that_of_its_pictures(tmp_path: Path, zoo_pool: EnginePool) -> None:
    def sha256(colours: list[str]) -> str:
        for path in tmp_path.glob("*.png"):
            path.unlink()
        for i, colour in enumerate(colours):
            Image.new("RGB", (64, 64), colour).save(tmp_path / f"{i}.png")
        return find([f"acme={tmp_path}"], zoo_pool)[0].sha256

    assert sha256(["red", "blue"]) == sha256(["blue", "red", "red"]) != sha256(["red"])


def test_a_bad_folder_is_refused_with_its_fault(tmp_path: Path, exemplar_folders: Path, zoo_pool: EnginePool) -> None:
    with pytest.raises(ConfigError, match=r"candidate acme: .*nowhere is no folder; name the folder"):
        find(["acme=/nowhere"], zoo_pool)
    (tmp_path / "empty").mkdir()
    with pytest.raises(BundleError, match=r"candidate acme: no picture found"):
        find([f"acme={tmp_path / 'empty'}"], zoo_pool)
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(BundleError, match=r"candidate acme: .*bad\.png: is not a readable .* take it out of the folder"):
        Attributor.open([f"acme={tmp_path}"], threads=1)
    with pytest.raises(ConfigError, match=r"'acme' is named twice"):
        find([f"acme={exemplar_folders / 'zoo-flux'}"] * 2, zoo_pool)
    with pytest.raises(ConfigError, match=r"together shares resyntheses, and acme cannot generate any"):
        Attributor.open([f"acme={exemplar_folders / 'zoo-flux'}", "zoo:"], together=True, threads=1)
