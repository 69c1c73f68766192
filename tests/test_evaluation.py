"""Protocols on made-up Gaussian features; then the whole of `resynth evaluate` on drawn pictures."""

import csv
import json
import shutil
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from resynth_fast import images
from resynth_fast.cli import __main__ as cli
from resynth_fast.errors import ConfigError, ResynthError
from resynth_fast.evaluation import baseline, harness, page, plots
from resynth_fast.evaluation.config import RECIPES, STEPS, EvaluationConfig
from resynth_fast.evaluation.dataset import Dataset, DatasetFeatures, read
from resynth_fast.evaluation.protocols import ProtocolRunner
from resynth_fast.evaluation.spaces import Spaces, folds
from resynth_fast.scoring.whitening import fit_constants

D, TAPS = 48, [16, 16, 16]


def world(seed, generators=4, prompts=12, copies=4, spread=0.34, own=0.0, content=2.5):
    """Features with an offset for each generator, a strong content and anisotropic noise; pictures' makers and prompts.

    `own`: what a generator does to one prompt and not to others.
    """
    rng = np.random.default_rng(seed)
    p, g, _ = (a.ravel() for a in np.meshgrid(range(prompts), range(generators), range(copies), indexing="ij"))
    loud = np.random.default_rng(99).normal(size=(6, D)) * 0.4  # the same directions in every world: noise is the extractor's
    x = rng.normal(size=(generators, D))[g] * spread + rng.normal(size=(prompts, D))[p] * content
    x += rng.normal(size=(generators, prompts, D))[g, p] * own + rng.normal(size=(len(g), D)) * 0.7 + rng.normal(size=(len(g), 6)) @ loud
    return x.astype(np.float32), g, p


def described(x, g, p, **changes):
    n = len(g)
    dataset = Dataset(
        files=tuple(Path(str(i)) for i in range(n)),
        generators=tuple(f"g{i}" for i in range(int(g.max()) + 1)),
        prompts=tuple(f"p{i}" for i in range(int(p.max()) + 1)),
        generator=g,
        prompt=p,
        group=p,
        probe=np.ones(n, bool),
        reference=np.ones(n, bool),
    )
    return DatasetFeatures(replace(dataset, **changes), x, x, 0.1)


def constants():
    """Of generators that are nobody's candidates; one family of degradations moves pictures along one axis."""
    x, g, p = world(100, generators=6, prompts=20)
    moved = np.zeros((40, D))
    moved[:, 3] = np.random.default_rng(1).normal(size=40) * 3
    return fit_constants(x, {"a": 16, "b": 16, "c": 16}, g, p, {"jpeg": moved})


CONSTANTS = constants()


@pytest.fixture(scope="module")
def data():
    return described(*world(0))


def bench(data, probes=None, spaces=None, **setting):
    return ProtocolRunner(data, CONSTANTS, TAPS, EvaluationConfig(**{"draws": 2, **setting}), probes, spaces)


def accuracy(data, **setting):
    judged = bench(data, **setting).judge()
    return float((judged.scores.argmax(1) == judged.truth).mean())


def without(x, rows):
    """The features with `rows` far off."""
    poisoned = x.copy()
    poisoned[rows] += 1e3 * np.random.default_rng(3).normal(size=(len(rows), x.shape[1])).astype(np.float32)
    return poisoned


def test_every_part_of_the_recipe_earns_its_keep():
    worlds = [described(*world(seed)) for seed in range(3)]
    mean = {name: np.mean([accuracy(w, recipe=name) for w in worlds]) for name in ("default", "together", "one-shot", "paper")}
    assert mean["default"] > mean["together"] + 0.01
    assert mean["together"] > mean["one-shot"] + 0.05
    assert mean["one-shot"] > mean["paper"] + 0.05
    assert mean["paper"] > 0.25


def test_more_references_are_better(data):
    assert accuracy(data, recipe="one-shot", references=3) > accuracy(data, recipe="one-shot", references=1) + 0.03


@pytest.mark.parametrize("name", RECIPES)
def test_a_verdict_does_not_depend_on_what_is_asked_beside_it(data, name):
    whole = bench(data, recipe=name, references=2).judge()
    rows = np.array([150, 3, 77])
    some = bench(data, recipe=name, references=2).judge(probes=rows)
    for i in rows:
        [alone] = [bench(data, recipe=name, references=2).judge(probes=np.array([i]))]
        np.testing.assert_allclose(whole.scores[whole.probe == i], alone.scores, rtol=1e-9)
        np.testing.assert_allclose(some.scores[some.probe == i], alone.scores, rtol=1e-9)
        np.testing.assert_allclose(whole.consistency[whole.probe == i], alone.consistency, rtol=1e-9)


def test_references_are_pictures_of_the_prompt_without_the_probe(data):
    b = bench(data, references=3)
    seen = set()
    for i in range(len(data.dataset)):
        for draw in range(2):
            for g, rows in enumerate(b.references_of(i, draw, range(4))):
                assert i not in rows
                assert len(set(rows.tolist())) == len(rows) == 3
                assert set(data.dataset.prompt[rows]) == {data.dataset.prompt[i]}
                assert set(data.dataset.generator[rows]) == {g}
                seen.add((i, draw, g, *sorted(rows)))
    assert len({key[:1] + key[2:] for key in seen}) > len(data.dataset) * 4  # draws differ


def test_the_probes_absence_from_its_cell_does_not_show(data):
    """Four pictures a cell and four references: the maker's cell has three without the probe, and so must the others."""
    for i in (0, 50, 191):
        assert [len(rows) for rows in bench(data, references=4).references_of(i, 0, range(4))] == [3] * 4
    apart = described(*world(0), reference=np.arange(192) % 4 > 0)  # probes that are no references leave no gap
    assert [len(rows) for rows in bench(apart, references=4).references_of(0, 0, range(4))] == [3] * 4
    assert [len(rows) for rows in bench(apart, references=4).references_of(1, 0, range(4))] == [2] * 4


@pytest.mark.parametrize("name", RECIPES)
def test_the_gallery_never_holds_the_probes_prompt(data, name):
    """Poison every picture of the probe's prompt and fold but its references: nothing moves. Poison another fold: the gallery shows it."""
    probe, x = 21, data.features
    b = bench(data, recipe=name, draws=1)
    used = np.concatenate([[probe], *b.references_of(probe, 0, range(4))])
    before = b.judge(probes=np.array([probe])).scores
    same = np.setdiff1d(np.flatnonzero(data.dataset.prompt == data.dataset.prompt[probe]), used)
    fold = np.setdiff1d(np.flatnonzero(b.fold == b.fold[probe]), used) if name == "default" else same
    for rows in (same, fold):
        poisoned = replace(data, features=without(x, rows), last=without(x, rows))
        np.testing.assert_allclose(bench(poisoned, recipe=name, draws=1).judge(probes=np.array([probe])).scores, before, rtol=1e-9)
    others = np.flatnonzero(b.fold != b.fold[probe])
    poisoned = replace(data, features=without(x, others), last=without(x, others))
    moved = bench(poisoned, recipe=name, draws=1).judge(probes=np.array([probe])).scores
    assert np.allclose(moved, before) == (name not in ("default", "together"))


@pytest.mark.parametrize("name", RECIPES)
def test_the_open_protocol_never_sees_the_unknown_generator(data, name):
    unknown, probe = 2, int(np.flatnonzero(data.dataset.generator == 2)[5])
    rest = np.setdiff1d(np.flatnonzero(data.dataset.generator == unknown), [probe])
    poisoned = replace(data, features=without(data.features, rest), last=without(data.features, rest))
    known = [0, 1, 3]
    rows = np.append(np.flatnonzero(data.dataset.generator != unknown)[::7], probe)
    before, after = (bench(d, recipe=name).judge(known, rows) for d in (data, poisoned))
    np.testing.assert_allclose(before.scores, after.scores, rtol=1e-9)
    np.testing.assert_allclose(before.consistency, after.consistency, rtol=1e-9)
    assert (before.truth < 0).sum() == 2  # two draws of one probe


def test_unknown_generators_look_less_known():
    far = described(*world(1, spread=0.8))
    found = harness.strict(bench(far, references=3))
    assert found["auroc"] > 0.8
    assert found["oscr"] > 0.75
    assert [row["unknown"] for row in found["by_generator"]] == ["g0", "g1", "g2", "g3"]
    assert harness.strict(bench(described(*world(1, generators=2)))) is None
    assert harness.strict(bench(far, references=0)) is None


def test_cells_of_any_size():
    x, g, p = world(2)
    keep = np.random.default_rng(0).random(len(g)) < 0.45
    keep &= ~((p == 0) & (g == 1))  # one cell is empty
    uneven = described(x[keep], g[keep], p[keep])
    with_gallery, without_gallery = (bench(uneven, recipe=name, references=2) for name in ("default", "one-shot"))
    every, some = (harness.closed(b, b.judge()) for b in (with_gallery, without_gallery))
    assert every["n"] + every["unjudged"] == some["n"] + some["unjudged"] == keep.sum()
    assert every["unjudged"] == 0  # whom a probe lacks references of is judged by the gallery
    cells = np.unique(g[keep] * 100 + p[keep], return_counts=True)
    lonely = cells[0][cells[1] == 1]
    judged = without_gallery.judge()
    assert not np.isin(g[keep][judged.probe] * 100 + p[keep][judged.probe], lonely).any()
    assert not (p[keep][judged.probe] == 0).any()
    assert some["unjudged"] > len(lonely)
    assert every["accuracy"]["balanced"] > 0.6


def test_sources_that_nobody_resynthesised_are_unknown_and_no_candidates():
    x, g, p = world(3, spread=0.6)
    outsider = described(x, g, p, reference=g < 3)
    b = bench(outsider, references=2)
    judged = b.judge()
    assert judged.scores.shape[1] == 3
    result = harness.closed(b, judged)
    assert (result["n"], result["unjudged"]) == (144, 0)
    assert np.shape(result["confusion"]) == (3, 3)
    [found] = harness.outside(b, judged)
    assert (found["unknown"], found["n"]) == ("g3", 48)
    assert found["auroc"] > 0.6
    with pytest.raises(ConfigError, match="1 of the dataset's generators"):
        bench(described(x, g, p, reference=g < 1))


@pytest.mark.parametrize("step", STEPS)
def test_every_step_can_be_left_out(data, step):
    steps = ("scaling", "whitening") if step == "scaling" else (step,)
    before, after = (bench(data, without=left).judge().scores for left in (steps[1:], steps))
    assert not np.allclose(before, after, rtol=1e-3)


def test_a_family_left_out_of_the_nuisance_constants_costs_accuracy(data):
    rng = np.random.default_rng(5)
    x = data.features.copy()
    x[:, 3] += rng.choice([-12, 12], len(x))
    degraded = replace(data, features=x)
    aware, ignorant = (bench(data, degraded, recipe="one-shot", leave_out=left, references=2).judge() for left in ((), ("jpeg",)))
    hits = [(j.scores.argmax(1) == j.truth).mean() for j in (aware, ignorant)]
    assert hits[0] > hits[1] + 0.1
    unmoved = bench(data, recipe="one-shot", leave_out=("jpeg",)).judge()
    np.testing.assert_array_equal(unmoved.scores, bench(data, recipe="one-shot", without=("nuisance",)).judge().scores)


def test_only_the_probe_is_degraded(data):
    """With every picture degraded but the probe's own copy clean, nothing changes: references are taken from the clean ones."""
    degraded = replace(data, features=without(data.features, np.arange(1, len(data.features))))
    rows = np.array([0])
    clean, mixed = (bench(data, probes).judge(probes=rows) for probes in (None, degraded))
    np.testing.assert_allclose(clean.scores, mixed.scores, rtol=1e-9)
    fewer = replace(data, dataset=data.dataset.only(np.arange(5)), features=data.features[:5])
    with pytest.raises(ConfigError, match="changed while they were read"):
        bench(data, fewer)


def test_no_generation_at_all(data):
    b = bench(data, references=0)
    assert [len(r) for r in b.references_of(5, 0, range(4))] == [0] * 4
    result = harness.closed(b, b.judge())
    assert result["accuracy"]["balanced"] > 0.6
    assert result["gallery_per_candidate"] == 4 * (12 - 3)  # the largest fold has three of twelve prompts
    lonely = described(*world(0, copies=1))
    assert accuracy(lonely, references=0) > 0.4


def test_gallery_pictures_in_place_of_resyntheses(data):
    arbitrary = bench(data, recipe="one-shot", references=5, policy="arbitrary")
    for rows in arbitrary.references_of(7, 0, range(4)):
        assert len(set(rows)) == 5
        assert data.dataset.prompt[7] not in data.dataset.prompt[rows]
    assert arbitrary.gallery_per_candidate() == 5
    assert arbitrary.gallery_at_most() == 44
    x = data.features.copy()
    x[data.dataset.prompt == 6] += x[7] - x[data.dataset.prompt == 6].mean(0)  # one prompt looks like the probe's
    alike = replace(data, features=x, last=None)
    for rows in bench(alike, recipe="one-shot", references=4, policy="aligned").references_of(7, 0, range(4)):
        assert set(data.dataset.prompt[rows]) == {6}


def test_captions_that_lend_each_other_their_resyntheses(data):
    alone, one_shot = (bench(data, **s).judge().scores for s in ({"recipe": "together", "together": 1}, {"recipe": "one-shot"}))
    np.testing.assert_allclose(alone, one_shot)
    few, many = (accuracy(data, recipe="together", together=n) for n in (2, None))
    assert many > few
    everyone = bench(data, recipe="together", together=12).judge().scores
    np.testing.assert_allclose(everyone, bench(data, recipe="together").judge().scores, rtol=1e-6)
    assert [bench(data, recipe="together", together=n).captions_together() for n in (None, 5, 99)] == [12, 5, 12]


def test_shared_spaces_change_nothing(data):
    spaces = Spaces(data, CONSTANTS)
    settings = [{}, {"without": ("own",)}, {"references": 2}, {"recipe": "one-shot"}, {"leave_out": ("jpeg",)}, {"seed": 3}, {}]
    for setting in settings:
        shared, own = (bench(data, spaces=s, draws=1, **setting).judge().scores for s in (spaces, None))
        np.testing.assert_array_equal(shared, own)


def test_folds_keep_a_group_together(data):
    of = folds(data.dataset, 0)
    assert len(np.unique(of)) == 5
    assert all(len(np.unique(of[data.dataset.group == q])) == 1 for q in range(12))
    assert (folds(data.dataset, 1) != of).any()
    single = described(*world(0, prompts=1))
    assert bench(single).gallery_per_candidate() == 0
    assert np.isfinite(bench(single).judge().scores).all()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"recipe": "magic"}, "--recipe is 'magic'; it must be default, one-shot"),
        ({"without": ("sleep",)}, "--without is 'sleep'"),
        ({"recipe": "one-shot", "without": ("own",)}, "'own', a step that recipe 'one-shot' does not have"),
        ({"recipe": "paper", "without": ("whitening",)}, "a step that recipe 'paper' does not have"),
        ({"without": ("scaling",)}, "needs --without whitening too"),
        ({"references": -1}, "references is -1"),
        ({"draws": 0}, "draws 0"),
        ({"seed": -1}, "--seed is -1"),
        ({"references": 0, "recipe": "one-shot"}, "nothing but its references"),
        ({"references": 0, "without": ("gallery",)}, "without a gallery has nothing but its references"),
        ({"together": 3}, "--together is 3 with recipe 'default'"),
        ({"recipe": "layer", "leave_out": ("jpeg",)}, "recipe 'layer' has no nuisance"),
        ({"policy": "guess"}, "policy is 'guess'"),
        ({"policy": "aligned"}, "recipe one-shot"),
    ],
)
def test_settings_that_say_nothing_are_refused(setting, message):
    with pytest.raises(ConfigError, match=message):
        EvaluationConfig(**setting)


def test_an_extractor_may_lack_what_a_recipe_needs(data):
    with pytest.raises(ConfigError, match="without its own last layer"):
        bench(replace(data, last=None), recipe="paper")
    with pytest.raises(ConfigError, match="compares one tap"):
        ProtocolRunner(data, CONSTANTS, [16, 32], EvaluationConfig(recipe="layer"))
    with pytest.raises(ConfigError, match="'fog'; the extractor's nuisance constants have jpeg"):
        bench(data, leave_out=("fog",))
    with pytest.raises(ConfigError, match="no probe has a reference"):
        bench(described(*world(0, copies=1)), recipe="one-shot").judge()


def test_size_and_codec_give_away_an_unfair_dataset_only():
    rng = np.random.default_rng(0)
    generator, group = np.tile(np.arange(3), 60), np.repeat(np.arange(20), 9)
    fair = np.concatenate([np.full((180, 2), 512.0), np.tile([1.0, 0, 0], (180, 1)), rng.normal(size=(180, 3))], axis=1)
    found = baseline.evaluate(fair, generator, group)
    assert found["balanced"] == pytest.approx(1 / 3, abs=0.15)
    assert found["normalised"] == pytest.approx(1 / 3, abs=0.15)
    sizes = fair.copy()
    sizes[:, 0] = np.where(generator == 1, 768, rng.choice([512, 1024], 180))  # no class mean tells these apart
    assert baseline.evaluate(sizes, generator, group)["balanced"] > 0.6
    same = np.ones((180, 8))
    assert baseline.evaluate(same, generator, group)["balanced"] == pytest.approx(1 / 3, abs=0.15)
    assert baseline.evaluate(fair, generator, np.zeros(180, int))["balanced"] is None


# --- from pictures -------------------------------------------------------------------------------------------------

NAMES = ("plain", "smooth", "waves")
PROMPTS, COPIES, SIDE = 6, 4, 96


def picture(prompt, generator, copy):
    """A blurred drawing that belongs to the prompt, under noise that belongs to the generator."""
    scene, rng = np.random.default_rng([7, prompt]), np.random.default_rng([8, prompt, generator, copy])
    coarse = scene.normal(size=(6, 6, 3)) + 0.4 * rng.normal(size=(6, 6, 3))
    coarse = ((coarse - coarse.min()) / np.ptp(coarse) * 255).astype(np.uint8)
    pixels = np.asarray(Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC)).astype(float)
    noise = rng.normal(size=pixels.shape)
    if generator == 1:
        noise = (noise + np.roll(noise, 1, 0) + np.roll(noise, 1, 1)) / 1.7
    if generator == 2:
        noise = (noise + 1.5 * np.sin(np.arange(SIDE) * 1.1 + rng.random() * 6)[:, None]) / 1.5
    return Image.fromarray((pixels * 0.8 + 20 + noise * 9).clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    root = tmp_path_factory.mktemp("drawn")
    for p in range(PROMPTS):
        for g, name in enumerate(NAMES):
            folder = root / f"prompt {p}" / name
            folder.mkdir(parents=True)
            for copy in range(COPIES):
                picture(p, g, copy).save(folder / f"{copy}.png")
    (root / "prompt 2" / "waves" / "broken.png").write_bytes(b"no picture")
    (root / "prompt 2" / "waves" / "link.png").symlink_to(root / "gone.png")
    (root / "prompt 2" / "waves" / "notes.txt").write_text("no picture either")
    return root


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def evaluate(root, cache, *options, format="json"):
    arguments = ["evaluate", root, "--references", 2, "--draws", 2, "--threads", 1, "--cache", cache, "--format", format, *options]
    done = CliRunner().invoke(cli.app, [str(a) for a in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout) if format == "json" else done.stdout


def test_closed_protocol_on_pictures(drawn, cache):
    result = evaluate(drawn, cache, "--protocol", "closed")
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
    assert result["no_gallery"]["gallery_per_candidate"] == 0
    assert 1 / 3 < result["no_gallery"]["balanced"] <= result["accuracy"]["balanced"]
    assert sorted(Path(text.split(":")[0]).name for text in result["skipped"]) == ["broken.png", "link.png"]
    assert set(result["baseline"]) == {"balanced", "normalised", "chance"}


def test_features_are_kept_between_runs(drawn, cache, monkeypatch):
    first = evaluate(drawn, cache, "--recipe", "one-shot")

    def unreadable(path):
        raise AssertionError("a picture was read again")

    monkeypatch.setattr(images, "read", unreadable)
    again = evaluate(drawn, cache, "--recipe", "one-shot")
    for result in (first, again):
        assert result.pop("seconds_per_probe") > 0
    assert again == first


def test_a_broken_cache_is_made_again(drawn, tmp_path):
    first = evaluate(drawn, tmp_path, "--recipe", "one-shot")
    [kept] = tmp_path.glob("*.npz")
    whole = kept.read_bytes()
    kept.write_bytes(whole[: len(whole) // 2])
    assert evaluate(drawn, tmp_path, "--recipe", "one-shot")["confusion"] == first["confusion"]
    assert len(kept.read_bytes()) == len(whole)
    with pytest.raises(ConfigError, match=r"cache of features .* cannot be written .*--cache"):
        evaluate(drawn, kept, "--recipe", "one-shot")


def test_robustness_protocol_on_pictures(drawn, cache, tmp_path):
    result = evaluate(drawn, cache, "--protocol", "robustness", "--degradation", "jpeg-50", "--degradation", "webp-80", "--out", tmp_path)
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
            drawn, cache, "--protocol", "robustness", "--degradation", "jpeg-50", "--recipe", "one-shot", "--without", "nuisance"
        )["robustness"][0]
    )


@pytest.fixture(scope="module")
def curve(drawn, cache):
    return evaluate(drawn, cache, "--protocol", "curve")


def test_curve_protocol_on_pictures(drawn, cache, curve):
    result = curve
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
    table = evaluate(drawn, cache, "--protocol", "curve", "--recipe", "one-shot", format="table")
    lines = [line for line in table.splitlines() if line.startswith("resynthesised")]
    assert len(lines) == 2
    assert "skipped:" in table


def test_open_protocol_on_pictures(drawn, cache):
    result = evaluate(drawn, cache, "--protocol", "open", "--recipe", "one-shot")
    assert [row["unknown"] for row in result["open"]["by_generator"]] == list(NAMES)
    assert (
        result["open"]["auroc"] == result["auroc_unknown"] == pytest.approx(np.mean([r["auroc"] for r in result["open"]["by_generator"]]))
    )
    text = evaluate(drawn, cache, "--protocol", "open", "--recipe", "one-shot", format="csv")
    assert [row["condition"] for row in csv.DictReader(text.splitlines())][1:] == [f"unknown: {name}" for name in NAMES]


def test_the_layout_of_the_papers_authors(drawn, cache, tmp_path):
    """Probes of three sources, two of which were asked to draw every identity again."""
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
    result = evaluate(tmp_path, cache, "--references", 1)
    assert (result["n"], result["unjudged"], result["generators"]) == (12, 0, list(NAMES[:2]))
    assert result["accuracy"]["balanced"] > 0.8
    assert [(row["unknown"], row["n"]) for row in result["outside"]] == [("waves", 6)]
    assert result["gallery_per_candidate"] == 3 * (PROMPTS - 2)


def test_one_picture_a_cell_is_judged_by_the_gallery_alone(drawn, cache, tmp_path):
    for prompt in drawn.iterdir():
        for name in NAMES:
            (tmp_path / prompt.name / name).mkdir(parents=True)
            shutil.copy(prompt / name / "0.png", tmp_path / prompt.name / name)
    result = evaluate(tmp_path, cache, "--references", 1, "--protocol", "curve")
    assert (result["n"], result["unjudged"], "no_gallery" in result) == (18, 0, False)
    assert result["accuracy"]["balanced"] > 0.5
    assert {row["policy"] for row in result["curve"]} == {"resynthesised, default", "arbitrary", "aligned"}
    with pytest.raises(ConfigError, match="no probe has a reference"):
        evaluate(tmp_path, cache, "--references", 1, "--recipe", "one-shot")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--protocol", "fewest"], "--protocol is 'fewest'; it must be closed, open"),
        (["--recipe", "magic"], "--recipe is 'magic'"),
        (["--recipe", "paper"], "without its own last layer"),
        (["--recipe", "layer"], "compares one tap"),
        (["--degradation", "fog-3"], "perturbation is 'fog-3'"),
        (["--leave-out", "fog"], "--leave-out is 'fog'"),
        (["--protocol", "open", "--references", "0"], "leaves each generator out once"),
        (["--format", "xml"], "--format is 'xml'"),
    ],
)
def test_wrong_options_are_named(drawn, cache, options, message):
    with pytest.raises(ConfigError, match=message):
        evaluate(drawn, cache, *options)


def test_folders_that_are_no_dataset(tmp_path, cache, drawn):
    with pytest.raises(ConfigError, match="no dataset at"):
        read(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="0 generators"):
        read(tmp_path)
    shutil.copytree(drawn / "prompt 0" / "plain", tmp_path / "p" / "only")
    with pytest.raises(ConfigError, match="1 generators"):
        read(tmp_path)
    (tmp_path / "p" / "other").mkdir()
    (tmp_path / "p" / "other" / "bad.png").write_bytes(b"")
    with pytest.raises(ConfigError, match="1 of the dataset's generators"):
        evaluate(tmp_path, cache)


def test_the_zoo_is_evaluated_and_has_a_page(cache, tmp_path):
    result = evaluate("zoo:", cache, "--probes", 4, "--references", 1, "--steps", 1, "--probe-steps", 1, "--out", tmp_path)
    assert (result["n"], result["unknown"]["n"], result["gallery_per_candidate"]) == (4, 1, 0)
    assert set(result["conditions"]) == {"tagger", "true", "nearest", "random"}
    text = Page((tmp_path / "index.html").read_text()).text
    for shown in ("captions: random", "What the caption is worth", "zoo-sd-twin", "Probes of a withheld generator (1)"):
        assert shown in text
    with pytest.raises(ConfigError, match="zoo: has only closed"):
        evaluate("zoo:", cache, "--protocol", "open")
    with pytest.raises(ConfigError, match="--race is for zoo:"):
        evaluate(tmp_path, cache, "--race")
    with pytest.raises(ConfigError, match=r"'gallery': --without, .* are for datasets in a folder"):
        evaluate("zoo:", cache, "--without", "gallery")


def test_racing_is_told_beside_the_exhaustive_run(cache, tmp_path):
    result = evaluate(
        "zoo:", cache, "--probes", 4, "--references", 2, "--steps", 1, "--probe-steps", 1, "--seed", 3, "--race", "--out", tmp_path
    )
    race, conditions = result["race"], result["conditions"]
    assert 4 <= race["pictures"] < race["of_pictures"] == 8
    assert race["denoiser_rows"] < race["of_denoiser_rows"] == 2 * (2 + 2 + 2 + 1)  # zoo-flux has no second row for guidance
    assert race["accuracy"] == conditions["tagger, racing"]["top1"]
    assert race["of_accuracy"] == conditions["tagger"]["top1"]
    assert race["attributed"] >= conditions["tagger"]["status"]["attributed"]  # of the withheld generator's too
    assert race["differ"] <= race["attributed"]
    assert "Pictures when racing" in Page((tmp_path / "index.html").read_text()).text


# --- the page ------------------------------------------------------------------------------------------------------

HOSTILE = "<script>alert(1)</script>\"'$x^{2$ {{ 7 * 7 }}\u202egnp"


class Page(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def result(curve):
    """One that has everything a page can show."""
    found = dict(curve)
    found["robustness"] = [
        {"degradation": "jpeg-50", "balanced": 0.7, "ci95": [0.6, 0.8], "gallery_per_candidate": 16, "left_out": found["curve"][0]},
        {"degradation": "webp-50", "balanced": 0.6, "ci95": [0.5, 0.7], "gallery_per_candidate": 16},
    ]
    figures = {"auroc": 0.81, "oscr": 0.77, "ccr_at_fpr5": 0.5, "fpr_at_tpr95": 0.4}
    found["robustness"][1]["degradation"] = "=webp-50"
    found["open"] = {**figures, "by_generator": [{"unknown": HOSTILE, **figures}]}
    found["outside"] = [{"unknown": "camera", "n": 5, **figures}]
    found["generators"] = [HOSTILE, "smooth", "waves"]
    return found


def test_the_page_shows_everything_and_loads_nothing(result, tmp_path):
    page.write(tmp_path, result)
    html = (tmp_path / "index.html").read_text()
    found = Page(html)
    text = found.text.replace("\xa0", " ")
    accuracy = f"{100 * result['accuracy']['balanced']:.1f} %"
    for shown in (
        accuracy,
        "The gallery held at least 16 pictures",
        "By the number of references",
        "Degraded probes",
        "Who is taken for whom",
        "Unknown generators",
        "camera, never a candidate (5 probes)",
        "Calibration",
        "Conformal sets",
        "After pixel normalisation",
        "Setting and provenance",
        result["provenance"]["extractor_sha256"][:12],
        "2 pictures could not be read",
        "broken.png",
    ):
        assert shown in text, shown
    assert "script" not in found.tags
    assert "<script>alert(1)" in text  # shown as text
    assert "49" not in text.split("Who is taken")[1].split("Unknown")[0]
    assert "\u202e" not in html
    loads = [(name, value) for name, value in found.attributes if name in ("src", "href", "xlink:href", "srcset", "data", "action")]
    assert all(value.startswith("#") for _, value in loads)
    assert "@import" not in html
    ids = [value for name, value in found.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    assert {value[1:] for _, value in loads} <= set(ids)
    assert json.loads((tmp_path / "result.json").read_text()) == result
    assert "\n'=webp-50," in (tmp_path / "result.csv").read_text()  # no formula for a spreadsheet
    assert {f.name for f in (tmp_path / "plots").iterdir()} == {"curve.svg", "robustness.svg", "reliability.svg", "confusion.svg"}


def test_the_same_result_gives_the_same_plots(result):
    drawn = plots.draw(result)
    assert drawn == plots.draw(result)
    for name, svg in drawn.items():
        part = plots.inline(name, svg, "title")
        assert part.startswith("<svg role=")
        assert "DOCTYPE" not in part
        assert plots.INK not in part


def test_many_candidates_are_shown_as_a_plot(result, tmp_path):
    count = 30
    many = {**result, "generators": [f"g{i}" for i in range(count)], "confusion": (np.eye(count, dtype=int) * 3 + 1).tolist()}
    page.write(tmp_path, many)
    html = (tmp_path / "index.html").read_text()
    assert 'class="matrix"' not in html
    assert 'class="plot confusion"' in html


def test_without_matplotlib_everything_else_is_written(result, drawn, cache, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigError, match=r"pip install 'resynth-fast\[plots\]'; the rest of the result is in"):
        page.write(tmp_path, result)
    assert {f.name for f in tmp_path.iterdir()} == {"result.json", "result.csv", "index.html"}
    assert "matrix" in (tmp_path / "index.html").read_text()


def test_an_unwritable_folder_is_named(result, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResynthError, match=r"--out .*file cannot be written"):
        page.write(tmp_path / "file", result)
