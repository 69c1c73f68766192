"""`resynth gallery`: its effects, its reports of failures, and its exit codes."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from resynth_fast.cli import __main__ as cli
from resynth_fast.gallery import Gallery

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def resynth(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    """A function that runs a command in its own folder and returns (exit code, stdout, stderr)."""
    monkeypatch.setenv("RESYNTH_GALLERY", str(tmp_path / "gallery"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["resynth", "gallery", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code or 0
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def pictures(tmp_path: Path):
    """A folder of three pictures."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(3):
        paint(folder / f"{i}.png", i)
    return folder


def paint(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (64, 64, 3), np.uint8)).save(path)


def test_pictures_are_added_once_and_listed(resynth: Any, pictures: Any, tmp_path: Path) -> None:
    code, out, _ = resynth("add", "Source №1", pictures, "--prompt", "ein Gesicht 🙂", "--format", "json")
    told = json.loads(out)
    assert (code, told["added"], told["present"], told["failed"], told["entries"]) == (0, 3, 0, [], 3)
    code, out, _ = resynth("add", "Source №1", pictures / "0.png", pictures)
    assert (code, "0 added, 3 in the gallery already" in out) == (0, True)
    code, out, _ = resynth("list", "--format", "json")
    told = json.loads(out)
    assert told["generators"] == [{"generator": "Source №1", "entries": 3, "prompts": 1, "resyntheses": 0}]
    assert told["groups"] == {"general": 3}
    assert resynth("list")[1].splitlines()[2].split() == ["Source", "№1", "3", "1", "0"]
    with Gallery.open(tmp_path / "gallery") as gallery:
        assert {entry.prompt for entry in gallery.select()} == {"ein Gesicht 🙂"}


def test_a_bad_picture_is_reported_and_the_rest_done(resynth: Any, pictures: Any) -> None:
    (pictures / "broken.png").write_bytes(b"\x89PNG")
    code, out, _ = resynth("add", "g", pictures, pictures / "missing.png", "--format", "json")
    told = json.loads(out)
    assert (code, told["added"]) == (1, 3)
    assert [Path(failure["path"]).name for failure in told["failed"]] == ["broken.png", "missing.png"]
    code, out, _ = resynth("add", "g", pictures)
    assert code == 1
    assert "broken.png" in out
    assert "3 in the gallery already, 1 failed" in out


def test_one_picture_cannot_be_by_two_generators(resynth: Any, pictures: Any) -> None:
    resynth("add", "one", pictures / "0.png")
    code, out, _ = resynth("add", "two", pictures, "--format", "json")
    told = json.loads(out)
    assert (code, told["added"]) == (1, 2)
    assert "as a picture by one" in told["failed"][0]["error"]


def test_prompts_come_from_folders_also_where_several_generators_share_them(resynth: Any, tmp_path: Path) -> None:
    root = tmp_path / "matrix"
    paint(root / "a red cafe\u0301" / "mine" / "0.png", 0)  # decomposed, as some file systems give it
    paint(root / "a red cafe\u0301" / "other" / "0.png", 1)
    paint(root / "写真" / "1.png", 2)
    paint(root / "stray.png", 3)
    code, out, _ = resynth("add", "mine", root, "--prompts-from-folders", "--format", "json")
    told = json.loads(out)
    assert (code, told["added"], len(told["failed"])) == (1, 2, 1)
    assert "is not in the folder of a prompt" in told["failed"][0]["error"]
    with Gallery.open(tmp_path / "gallery") as gallery:
        assert {entry.prompt for entry in gallery.select()} == {"a red café", "写真"}


def test_where_every_folder_is_anothers_nothing_is_added(resynth: Any, tmp_path: Path) -> None:
    paint(tmp_path / "matrix" / "a prompt" / "other" / "0.png", 1)
    code, _, err = resynth("add", "mine", tmp_path / "matrix", "--prompts-from-folders")
    assert (code, "no picture by mine found" in err) == (1, True)


def test_a_group_is_fitted_apart(resynth: Any, pictures: Any, tmp_path: Path) -> None:
    resynth("add", "g", pictures / "0.png")
    resynth("add", "g", pictures / "1.png", "--group", "held back")
    with Gallery.open(tmp_path / "gallery") as gallery:
        assert len(gallery.snapshot()) == 1
        assert len(gallery.snapshot(["held back"])) == 1


def test_damage_is_found_taken_out_and_mended(resynth: Any, pictures: Any, tmp_path: Path) -> None:
    resynth("add", "g", pictures)
    assert resynth("verify")[:2] == (0, "3 entries, none damaged\n")
    path = tmp_path / "gallery" / "vectors" / "srm.f32"
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)
    code, out, _ = resynth("verify", "--format", "json")
    assert (code, [one["row"] for one in json.loads(out)["damaged"]]) == (3, [0])
    assert resynth("verify")[0] == 3
    code, out, _ = resynth("prune")
    assert (code, "1 removed" in out) == (0, True)
    assert resynth("verify")[:2] == (0, "2 entries, none damaged\n")
    assert "1 added, 2 in the gallery already" in resynth("add", "g", pictures)[1]


@pytest.mark.parametrize("command", ["list", "verify", "prune"])
def test_without_a_gallery_the_exit_code_is_3_and_none_is_created(resynth: Any, command: Any, tmp_path: Path) -> None:
    code, out, err = resynth(command)
    assert (code, out) == (3, "")
    assert "no gallery at" in err
    assert not (tmp_path / "gallery").exists()


def test_a_broken_gallery_has_exit_code_3(resynth: Any, pictures: Any, tmp_path: Path) -> None:
    resynth("add", "g", pictures)
    for leftover in (tmp_path / "gallery").glob("index.sqlite*"):
        leftover.write_bytes(b"x" * 5000)
    for command in (["list"], ["verify"], ["add", "g", pictures]):
        code, _, err = resynth(*command)
        assert code == 3, command
        assert err.startswith("resynth: ")
        assert err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["add", "g", "{}", "--prompt", "p", "--prompts-from-folders"],
        ["add", "g", "{}/0.png", "--prompts-from-folders"],
        ["add", "", "{}"],
        ["add", "a\x1bb", "{}"],
        ["add", "g", "{}", "--group", ""],
        ["add", "g", "{}", "--format", "xml"],
        ["add", "g", "{}", "--gallery", "{}"],
        ["add", "g", "{}", "--gallery", "{}/0.png"],
        ["verify", "--format", "xml"],
    ],
)
def test_a_wrong_call_has_exit_code_2_and_leaves_no_gallery(resynth: Any, pictures: Any, arguments: Any, tmp_path: Path) -> None:
    code, out, err = resynth(*(argument.replace("{}", str(pictures)) for argument in arguments))
    assert (code, out) == (2, "")
    assert err.startswith("resynth: ")
    assert not (tmp_path / "gallery" / "gallery.json").exists()


def test_without_a_named_folder_the_gallery_is_the_extractors_own(
    resynth: Any, pictures: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RESYNTH_GALLERY")
    assert resynth("add", "g", pictures)[0] == 0
    [folder] = (tmp_path / "data" / "resynth-fast" / "galleries").iterdir()
    assert folder.name.startswith("texture-")
    assert json.loads(resynth("list", "--format", "json")[1])["gallery"] == str(folder)


def test_a_named_extractor_must_be_the_gallerys(resynth: Any, pictures: Any, tmp_path: Path) -> None:
    from resynth_fast import zoo

    resynth("add", "g", pictures)
    shutil.copytree(zoo.FOLDER / "texture", tmp_path / "mine")
    shutil.copytree(zoo.FOLDER / "objects", tmp_path / "objects")
    manifest = json.loads((tmp_path / "mine" / "bundle.json").read_text())
    (tmp_path / "mine" / "bundle.json").write_text(json.dumps({**manifest, "name": "mine"}))
    code, _, err = resynth("list", "--extractor", tmp_path / "mine")
    assert (code, "cannot be compared" in err) == (3, True)
    assert resynth("add", "g", pictures, "--extractor", tmp_path / "mine")[0] == 3
    assert resynth("add", "g", pictures, "--extractor", tmp_path / "mine", "--gallery", tmp_path / "second")[0] == 0


def test_stored_features_are_those_of_the_extractor(resynth: Any, tmp_path: Path) -> None:
    from resynth_fast import images, zoo
    from resynth_fast.extractors.space import open_space

    resynth("add", "g", EXAMPLES / "01.png", EXAMPLES / "02.png")
    space = open_space(zoo.bundle(zoo.TEXTURE))
    with Gallery.open(tmp_path / "gallery") as gallery:
        expected = space.features([images.read(EXAMPLES / "02.png").pixels])
        np.testing.assert_array_equal(gallery.features([1]), expected)
        assert gallery.nearest(expected[:1], ["colour", "dct"])[0]["g"][0].entry.row == 1


def test_attribution_with_a_gallery_does_not_load_the_evaluation(tmp_path: Path) -> None:
    picture = EXAMPLES / "01.png"
    arguments = ["attribute", str(picture), "--gallery", str(tmp_path / "gallery"), "--policy", "both", "-k", "1", "--steps", "1"]
    command = f"""
import sys
from resynth_fast.cli.__main__ import app
app({arguments!r}, standalone_mode=False)
print(sorted(name for name in sys.modules if name.startswith("resynth_fast.evaluation")), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-P", "-c", command], capture_output=True, text=True, check=True)
    assert "Most consistent" in done.stdout or "Inconclusive" in done.stdout or "None of the" in done.stdout
    assert done.stderr.splitlines()[-1] == "[]"


def prompts(folder: Path) -> list[str | None]:
    with Gallery.open(folder) as store:
        return [entry.prompt for entry in store.select()]


def test_prompts_are_set_afterwards_by_adding_again_and_by_their_own_command(resynth: Any, pictures: Any, tmp_path: Path) -> None:
    _, out, _ = resynth("add", "a", pictures)
    assert "no prompts: " in out
    assert "set-prompt" in out
    _, out, _ = resynth("add", "a", pictures / "0.png", "--prompt", "a cat")
    assert "0 added, 1 in the gallery already" in out
    assert "1 prompts set" in out
    code, out, _ = resynth("set-prompt", "a", pictures / "1.png", "--prompt", "a dog")
    assert (code, out.strip()) == (0, "a: 1 prompts set")
    assert prompts(tmp_path / "gallery") == ["a cat", "a dog", None]
    code, out, _ = resynth("verify")
    assert (code, "none damaged" in out) == (0, True)
    paint(pictures / "new.png", 9)
    code, out, _ = resynth("set-prompt", "a", pictures / "new.png", "--prompt", "a dog")
    assert (code, "is not in the gallery as a picture by a; add it" in out) == (1, True)
    code, _, err = resynth("set-prompt", "a", pictures)
    assert (code, "takes --prompt or --prompts-from-folders, and has neither" in err) == (2, True)


def test_removed_pictures_are_gone_and_can_be_added_again(resynth: Any, pictures: Any, tmp_path: Path) -> None:
    resynth("add", "a", pictures, "--prompt", "p")
    with Gallery.open(tmp_path / "gallery") as store:
        x = store.features([entry.row for entry in store.select()])
        code, out, _ = resynth("rm", "a", pictures / "1.png")
        assert (code, out.strip()) == (0, "a: 1 removed")
        assert len(store) == 2
        assert len(store.nearest(x[1:2], list(store.layout.blocks))[0]["a"]) == 2  # an open reader sees it too
    code, out, _ = resynth("rm", "a", pictures / "1.png")
    assert (code, "is not in the gallery as a picture by a" in out) == (1, True)
    code, out, _ = resynth("add", "a", pictures, "--prompt", "p")
    assert "1 added, 2 in the gallery already" in out
    code, out, _ = resynth("rm", "a")
    assert (code, out.strip()) == (0, "a: 3 removed")
    code, _, err = resynth("rm", "a")
    assert (code, "has no pictures of 'a'" in err) == (2, True)
    assert "none damaged" in resynth("verify")[1]
