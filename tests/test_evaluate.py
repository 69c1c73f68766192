"""The whole of `resynth evaluate`, from pictures on disk to its output."""

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic_pictures import NAMES, PROMPTS, Page, evaluate, picture

from resynth_fast import images
from resynth_fast.errors import ConfigError
from resynth_fast.evaluation.dataset import read


def test_the_closed_protocol_reports_accuracy_calibration_and_cost(picture_folder: Path, cache_folder: Path) -> None:
    result = evaluate(picture_folder, cache_folder, "--protocol", "closed")
    fields = ("protocol", "recipe", "n", "accuracy", "top3", "gallery_per_candidate", "auroc_unknown", "ece", "nll", "seconds_per_probe")
    assert set(fields) <= set(result)
    assert (result["protocol"], result["recipe"], result["n"]) == ("closed", "default", 72)
    assert set(result["accuracy"]) == {"top1", "balanced", "ci95"}
    assert result["accuracy"]["balanced"] > 0.9
    assert result["accuracy"]["ci95"][0] <= result["accuracy"]["balanced"] <= result["accuracy"]["ci95"][1]
    assert result["gallery_per_candidate"] == 4 * (PROMPTS - 2)
    assert result["generators"] == list(NAMES)
    assert np.sum(result["confusion"]) == 72 * 2
    assert result["generator_runs_per_probe"] == 6
    assert result["seconds_per_probe"] > 0
    assert 0.5 < result["auroc_unknown"] <= 1
    assert 0 <= result["fpr_at_tpr95_unknown"] < 1
    assert 0.5 < result["oscr_unknown"] <= result["auroc_unknown"]
    assert result["no_gallery"]["gallery_per_candidate"] == 0
    assert 1 / 3 < result["no_gallery"]["balanced"] <= result["accuracy"]["balanced"]
    assert sorted(Path(text.split(":")[0]).name for text in result["skipped"]) == ["broken.png", "link.png"]
    assert set(result["baseline"]) == {"balanced", "normalised", "chance"}


def test_features_are_cached_between_runs(picture_folder: Path, cache_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = evaluate(picture_folder, cache_folder, "--recipe", "one-shot")

    def unreadable(path):
        raise AssertionError("a picture was read again")

    monkeypatch.setattr(images, "read", unreadable)
    again = evaluate(picture_folder, cache_folder, "--recipe", "one-shot")
    for result in (first, again):
        assert result.pop("seconds_per_probe") > 0
    assert again == first


def test_a_broken_cache_is_computed_again(picture_folder: Path, tmp_path: Path) -> None:
    first = evaluate(picture_folder, tmp_path, "--recipe", "one-shot")
    [kept] = tmp_path.glob("*.npz")
    whole = kept.read_bytes()
    kept.write_bytes(whole[: len(whole) // 2])
    assert evaluate(picture_folder, tmp_path, "--recipe", "one-shot")["confusion"] == first["confusion"]
    assert len(kept.read_bytes()) == len(whole)
    with pytest.raises(ConfigError, match=r"cache of features .* cannot be written .*--cache"):
        evaluate(picture_folder, kept, "--recipe", "one-shot")


def test_the_robustness_protocol_reports_each_degradation(picture_folder: Path, cache_folder: Path, tmp_path: Path) -> None:
    result = evaluate(
        picture_folder, cache_folder, "--protocol", "robustness", "--degradation", "jpeg-50", "--degradation", "webp-80", "--out", tmp_path
    )
    jpeg, webp = result["robustness"]
    assert (jpeg["degradation"], webp["degradation"]) == ("jpeg-50", "webp-80")
    assert 1 / 3 < jpeg["balanced"] <= result["accuracy"]["balanced"]
    assert jpeg["gallery_per_candidate"] == jpeg["left_out"]["gallery_per_candidate"] == 16
    assert "left_out" not in webp  # no nuisance constants are of that family
    rows = list(csv.DictReader((tmp_path / "result.csv").read_text().splitlines()))
    assert [row["condition"] for row in rows] == [
        "one-shot, no gallery",
        "default",
        "jpeg-50",
        "jpeg-50, family left out of the fit",
        "webp-80",
    ]
    assert [row["gallery"] for row in rows] == ["0", "16", "16", "16", "16"]
    assert float(rows[2]["balanced"]) == jpeg["balanced"]
    assert (
        "left_out"
        not in evaluate(
            picture_folder,
            cache_folder,
            "--protocol",
            "robustness",
            "--degradation",
            "jpeg-50",
            "--recipe",
            "one-shot",
            "--without",
            "nuisance",
        )["robustness"][0]
    )


def test_the_curve_protocol_reports_each_number_of_references(
    picture_folder: Path, cache_folder: Path, curve_result: dict[str, Any]
) -> None:
    result = curve_result
    rows = {(row["policy"], row["references"]): row for row in result["curve"]}
    assert [m for policy, m in rows if policy == "resynthesised, default"] == [0, 1, 2]
    assert [m for policy, m in rows if policy == "resynthesised, one-shot"] == [1, 2]
    assert [m for policy, m in rows if policy == "aligned"] == [1, 2, 4, 10]
    one, two = rows["resynthesised, one-shot", 1], rows["resynthesised, one-shot", 2]
    assert one["gain_per_picture"] == pytest.approx((one["balanced"] - 1 / 3) / 3)
    assert two["gain_per_picture"] == pytest.approx((two["balanced"] - one["balanced"]) / 3)
    assert rows["resynthesised, default", 0]["gain_per_picture"] is None
    assert rows["resynthesised, default", 2]["balanced"] == result["accuracy"]["balanced"]
    assert (one["gallery_per_candidate"], rows["arbitrary", 4]["gallery_per_candidate"]) == (0, 4)
    table = evaluate(picture_folder, cache_folder, "--protocol", "curve", "--recipe", "one-shot", format="table")
    lines = [line for line in table.splitlines() if line.startswith("resynthesised")]
    assert len(lines) == 2
    assert "skipped:" in table


def test_the_open_protocol_leaves_each_generator_out_once(picture_folder: Path, cache_folder: Path) -> None:
    result = evaluate(picture_folder, cache_folder, "--protocol", "open", "--recipe", "one-shot")
    assert [row["unknown"] for row in result["open"]["by_generator"]] == list(NAMES)
    of_generators = result["open"]["by_generator"]
    text = evaluate(picture_folder, cache_folder, "--protocol", "open", "--recipe", "one-shot", format="csv")
    mean, *rows = csv.DictReader(text.splitlines())
    assert [row["condition"] for row in rows] == [f"unknown: {name}" for name in NAMES]
    for key in ("auroc", "fpr_at_tpr95", "oscr"):
        assert result["open"][key] == result[f"{key}_unknown"] == pytest.approx(np.mean([row[key] for row in of_generators]))
        assert [float(row[key]) for row in (mean, *rows)] == pytest.approx([result[f"{key}_unknown"], *(row[key] for row in of_generators)])


def test_the_folder_layout_of_the_papers_authors_is_read(picture_folder: Path, cache_folder: Path, tmp_path: Path) -> None:
    """Probes of three sources, two of which resynthesised every identity."""
    for s, source in enumerate(NAMES):
        for p in range(PROMPTS):
            (tmp_path / "images" / source).mkdir(parents=True, exist_ok=True)
            picture(p, s, 0).save(tmp_path / "images" / source / f"{p:05}.png")
            for g, generator in enumerate(NAMES[:2]):
                folder = tmp_path / "images" / source / "images" / generator
                folder.mkdir(parents=True, exist_ok=True)
                picture(p, g, 1 + s).save(folder / f"{p:05}.png")
    dataset = read(tmp_path)
    assert (dataset.probe.sum(), dataset.reference.sum()) == (18, 36)
    assert not (dataset.probe & dataset.reference).any()
    assert len(np.unique(dataset.group)) == PROMPTS
    for i in np.flatnonzero(dataset.probe):
        own = dataset.reference & (dataset.prompt == dataset.prompt[i])
        assert {dataset.files[j].name for j in np.flatnonzero(own)} == {dataset.files[i].name}
        assert own.sum() == 2
    result = evaluate(tmp_path, cache_folder, "--references", 1)
    assert (result["n"], result["unjudged"], result["generators"]) == (12, 0, list(NAMES[:2]))
    assert result["accuracy"]["balanced"] > 0.8
    assert [(row["unknown"], row["n"]) for row in result["outside"]] == [("waves", 6)]
    assert result["gallery_per_candidate"] == 3 * (PROMPTS - 2)


def test_with_one_picture_a_cell_probes_are_judged_by_the_gallery_alone(picture_folder: Path, cache_folder: Path, tmp_path: Path) -> None:
    for prompt in picture_folder.iterdir():
        for name in NAMES:
            (tmp_path / prompt.name / name).mkdir(parents=True)
            shutil.copy(prompt / name / "0.png", tmp_path / prompt.name / name)
    result = evaluate(tmp_path, cache_folder, "--references", 1, "--protocol", "curve")
    assert (result["n"], result["unjudged"], "no_gallery" in result) == (18, 0, False)
    assert result["accuracy"]["balanced"] > 0.5
    assert {row["policy"] for row in result["curve"]} == {"resynthesised, default", "arbitrary", "aligned"}
    with pytest.raises(ConfigError, match="no probe has another picture"):
        evaluate(tmp_path, cache_folder, "--references", 1, "--recipe", "one-shot")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--protocol", "fewest"], "--protocol is 'fewest'; it must be closed, open"),
        (["--recipe", "magic"], "--recipe is 'magic'"),
        (["--recipe", "paper"], "needs the extractor's last layer"),
        (["--recipe", "layer"], "compares one of several equal taps"),
        (["--degradation", "fog-3"], "perturbation is 'fog-3'"),
        (["--leave-out", "fog"], "--leave-out is 'fog'"),
        (["--protocol", "open", "--references", "0"], "leaves each generator out once"),
        (["--format", "xml"], "--format is 'xml'"),
    ],
)
def test_wrong_options_are_named(picture_folder: Path, cache_folder: Path, options: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        evaluate(picture_folder, cache_folder, *options)


def test_a_folder_that_is_no_data_set_is_refused(tmp_path: Path, cache_folder: Path, picture_folder: Path) -> None:
    with pytest.raises(ConfigError, match="is not a folder"):
        read(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="0 generators"):
        read(tmp_path)
    shutil.copytree(picture_folder / "prompt 0" / "plain", tmp_path / "p" / "only")
    with pytest.raises(ConfigError, match="1 generators"):
        read(tmp_path)
    (tmp_path / "p" / "other").mkdir()
    (tmp_path / "p" / "other" / "bad.png").write_bytes(b"")
    with pytest.raises(ConfigError, match="1 of the dataset's generators"):
        evaluate(tmp_path, cache_folder)


def test_the_zoo_is_evaluated_and_has_a_page(cache_folder: Path, tmp_path: Path) -> None:
    result = evaluate("zoo:", cache_folder, "--probes", 4, "--references", 1, "--steps", 1, "--probe-steps", 1, "--out", tmp_path)
    assert (result["n"], result["unknown"]["n"], result["gallery_per_candidate"]) == (4, 1, 0)
    assert set(result["conditions"]) == {"tagger", "true", "nearest", "random"}
    text = Page((tmp_path / "index.html").read_text()).text
    for shown in ("captions: random", "Effect of the caption", "zoo-sd-twin", "Probes of a withheld generator (1)"):
        assert shown in text
    with pytest.raises(ConfigError, match="zoo: has closed and robustness"):
        evaluate("zoo:", cache_folder, "--protocol", "open")
    with pytest.raises(ConfigError, match="--race is for zoo:"):
        evaluate(tmp_path, cache_folder, "--race")
    with pytest.raises(ConfigError, match=r"'gallery': --without and --leave-out are for datasets in a folder"):
        evaluate("zoo:", cache_folder, "--without", "gallery")


def test_zoo_probes_are_judged_after_each_degradation(cache_folder: Path, tmp_path: Path) -> None:
    asked = ["--protocol", "robustness", "--degradation", "jpeg-50", "--degradation", "noise-200", "--out", tmp_path]
    result = evaluate("zoo:", cache_folder, "--probes", 12, "--references", 1, "--steps", 4, "--probe-steps", 4, *asked)
    clean, (jpeg, noise) = result["accuracy"]["balanced"], result["robustness"]
    assert [jpeg["degradation"], noise["degradation"]] == ["jpeg-50", "noise-200"]
    assert noise["balanced"] < min(clean, jpeg["balanced"])  # nothing is left of the pictures
    assert {"auroc", "fpr_at_tpr95", "oscr", "ci95", "nll", "status"} <= set(jpeg)
    assert "noise-200" in Page((tmp_path / "index.html").read_text()).text


def test_racing_is_reported_beside_the_exhaustive_run(cache_folder: Path, tmp_path: Path) -> None:
    result = evaluate(
        "zoo:", cache_folder, "--probes", 4, "--references", 2, "--steps", 1, "--probe-steps", 1, "--seed", 3, "--race", "--out", tmp_path
    )
    race, conditions = result["race"], result["conditions"]
    assert 4 <= race["pictures"] < race["of_pictures"] == 8
    assert race["denoiser_rows"] < race["of_denoiser_rows"] == 2 * (2 + 2 + 2 + 1)  # zoo-flux has no second row for guidance
    assert race["accuracy"] == conditions["tagger, racing"]["top1"]
    assert race["of_accuracy"] == conditions["tagger"]["top1"]
    assert race["attributed"] >= conditions["tagger"]["status"]["attributed"]  # probes of the withheld generator included
    assert race["differ"] <= race["attributed"]
    assert "Pictures when racing" in Page((tmp_path / "index.html").read_text()).text
