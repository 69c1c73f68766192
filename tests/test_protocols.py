"""Evaluation protocols, on features of known structure."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from gaussian_pictures import CONSTANTS, accuracy, dataset_features, runner, without, world

from resynth_fast.errors import ConfigError
from resynth_fast.evaluation import harness
from resynth_fast.evaluation.config import RECIPES, STEPS
from resynth_fast.evaluation.dataset import DatasetFeatures
from resynth_fast.evaluation.spaces import Spaces, folds


def test_every_part_of_the_recipe_improves_accuracy() -> None:
    worlds = [dataset_features(*world(seed)) for seed in range(3)]
    mean = {name: np.mean([accuracy(w, recipe=name) for w in worlds]) for name in ("default", "together", "one-shot", "paper")}
    assert mean["default"] > mean["together"] + 0.01
    assert mean["together"] > mean["one-shot"] + 0.05
    assert mean["one-shot"] > mean["paper"] + 0.05
    assert mean["paper"] > 0.25


def test_more_references_are_better(gaussian_data: DatasetFeatures) -> None:
    assert accuracy(gaussian_data, recipe="one-shot", references=3) > accuracy(gaussian_data, recipe="one-shot", references=1) + 0.03


@pytest.mark.parametrize("name", RECIPES)
def test_a_verdict_does_not_depend_on_the_other_probes(gaussian_data: DatasetFeatures, name: str) -> None:
    whole = runner(gaussian_data, recipe=name, references=2).judge()
    rows = np.array([150, 3, 77])
    some = runner(gaussian_data, recipe=name, references=2).judge(probes=rows)
    for i in rows:
        [alone] = [runner(gaussian_data, recipe=name, references=2).judge(probes=np.array([i]))]
        np.testing.assert_allclose(whole.scores[whole.probe == i], alone.scores, rtol=1e-9)
        np.testing.assert_allclose(some.scores[some.probe == i], alone.scores, rtol=1e-9)
        np.testing.assert_allclose(whole.consistency[whole.probe == i], alone.consistency, rtol=1e-9)


def test_references_are_pictures_of_the_prompt_without_the_probe(gaussian_data: DatasetFeatures) -> None:
    b = runner(gaussian_data, references=3)
    seen = set()
    for i in range(len(gaussian_data.dataset)):
        for draw in range(2):
            for g, rows in enumerate(b.references_of(i, draw, range(4))):
                assert i not in rows
                assert len(set(rows.tolist())) == len(rows) == 3
                assert set(gaussian_data.dataset.prompt[rows]) == {gaussian_data.dataset.prompt[i]}
                assert set(gaussian_data.dataset.generator[rows]) == {g}
                seen.add((i, draw, g, *sorted(rows)))
    assert len({key[:1] + key[2:] for key in seen}) > len(gaussian_data.dataset) * 4  # draws differ


def test_every_candidate_has_as_many_references_as_the_probes_own_generator(gaussian_data: DatasetFeatures) -> None:
    """Four pictures a cell, four references: without the probe, the cell of its generator has three, so all others give three."""
    for i in (0, 50, 191):
        assert [len(rows) for rows in runner(gaussian_data, references=4).references_of(i, 0, range(4))] == [3] * 4
    apart = dataset_features(*world(0), reference=np.arange(192) % 4 > 0)  # here probes are no references
    assert [len(rows) for rows in runner(apart, references=4).references_of(0, 0, range(4))] == [3] * 4
    assert [len(rows) for rows in runner(apart, references=4).references_of(1, 0, range(4))] == [2] * 4


@pytest.mark.parametrize("name", RECIPES)
def test_the_gallery_never_holds_the_probes_prompt(gaussian_data: DatasetFeatures, name: str) -> None:
    """Poisoning the probe's prompt and fold, except its references, changes nothing; poisoning another fold changes the gallery's part."""
    probe, x = 21, gaussian_data.features
    b = runner(gaussian_data, recipe=name, draws=1)
    used = np.concatenate([[probe], *b.references_of(probe, 0, range(4))])
    before = b.judge(probes=np.array([probe])).scores
    same = np.setdiff1d(np.flatnonzero(gaussian_data.dataset.prompt == gaussian_data.dataset.prompt[probe]), used)
    fold = np.setdiff1d(np.flatnonzero(b.fold == b.fold[probe]), used) if name == "default" else same
    for rows in (same, fold):
        poisoned = replace(gaussian_data, features=without(x, rows), last=without(x, rows))
        np.testing.assert_allclose(runner(poisoned, recipe=name, draws=1).judge(probes=np.array([probe])).scores, before, rtol=1e-9)
    others = np.flatnonzero(b.fold != b.fold[probe])
    poisoned = replace(gaussian_data, features=without(x, others), last=without(x, others))
    moved = runner(poisoned, recipe=name, draws=1).judge(probes=np.array([probe])).scores
    assert np.allclose(moved, before) == (name not in ("default", "together"))


@pytest.mark.parametrize("name", RECIPES)
def test_the_open_protocol_never_sees_the_unknown_generator(gaussian_data: DatasetFeatures, name: str) -> None:
    unknown, probe = 2, int(np.flatnonzero(gaussian_data.dataset.generator == 2)[5])
    rest = np.setdiff1d(np.flatnonzero(gaussian_data.dataset.generator == unknown), [probe])
    poisoned = replace(gaussian_data, features=without(gaussian_data.features, rest), last=without(gaussian_data.features, rest))
    known = [0, 1, 3]
    rows = np.append(np.flatnonzero(gaussian_data.dataset.generator != unknown)[::7], probe)
    before, after = (runner(d, recipe=name).judge(known, rows) for d in (gaussian_data, poisoned))
    np.testing.assert_allclose(before.scores, after.scores, rtol=1e-9)
    np.testing.assert_allclose(before.consistency, after.consistency, rtol=1e-9)
    assert (before.truth < 0).sum() == 2  # two draws of one probe


def test_probes_of_unknown_generators_have_lower_consistency() -> None:
    far = dataset_features(*world(1, spread=0.8))
    found = harness.strict(runner(far, references=3))
    assert found["auroc"] > 0.8
    assert found["oscr"] > 0.75
    assert [row["unknown"] for row in found["by_generator"]] == ["g0", "g1", "g2", "g3"]
    assert found["fpr_at_tpr95"] == pytest.approx(np.mean([row["fpr_at_tpr95"] for row in found["by_generator"]]))
    assert harness.strict(runner(dataset_features(*world(1, generators=2)))) is None
    assert harness.strict(runner(far, references=0)) is None


def test_a_gallery_tells_unknown_generators_better_apart() -> None:
    worlds = [dataset_features(*world(seed, spread=0.5)) for seed in range(3)]
    found = {
        recipe: np.mean([[harness.strict(runner(w, recipe=recipe))[key] for key in ("auroc", "fpr_at_tpr95")] for w in worlds], axis=0)
        for recipe in ("default", "one-shot")
    }
    (auroc, rate), (auroc_alone, rate_alone) = found["default"], found["one-shot"]
    assert auroc > auroc_alone + 0.05
    assert rate < rate_alone - 0.05


def test_cells_may_have_any_number_of_pictures() -> None:
    x, g, p = world(2)
    keep = np.random.default_rng(0).random(len(g)) < 0.45
    keep &= ~((p == 0) & (g == 1))  # one cell is empty
    uneven = dataset_features(x[keep], g[keep], p[keep])
    with_gallery, without_gallery = (runner(uneven, recipe=name, references=2) for name in ("default", "one-shot"))
    every, some = (harness.closed(b, b.judge()) for b in (with_gallery, without_gallery))
    assert every["n"] + every["unjudged"] == some["n"] + some["unjudged"] == keep.sum()
    assert every["unjudged"] == 0  # a candidate without references is judged by the gallery
    cells = np.unique(g[keep] * 100 + p[keep], return_counts=True)
    lonely = cells[0][cells[1] == 1]
    judged = without_gallery.judge()
    assert not np.isin(g[keep][judged.probe] * 100 + p[keep][judged.probe], lonely).any()
    assert not (p[keep][judged.probe] == 0).any()
    assert some["unjudged"] > len(lonely)
    assert every["accuracy"]["balanced"] > 0.6


def test_sources_without_references_are_unknown_and_no_candidates() -> None:
    x, g, p = world(3, spread=0.6)
    outsider = dataset_features(x, g, p, reference=g < 3)
    b = runner(outsider, references=2)
    judged = b.judge()
    assert judged.scores.shape[1] == 3
    result = harness.closed(b, judged)
    assert (result["n"], result["unjudged"]) == (144, 0)
    assert np.shape(result["confusion"]) == (3, 3)
    [found] = harness.outside(b, judged)
    assert (found["unknown"], found["n"]) == ("g3", 48)
    assert found["auroc"] > 0.6
    with pytest.raises(ConfigError, match="1 of the dataset's generators"):
        runner(dataset_features(x, g, p, reference=g < 1))


@pytest.mark.parametrize("step", STEPS)
def test_every_step_can_be_left_out(gaussian_data: DatasetFeatures, step: Any) -> None:
    steps = ("scaling", "whitening") if step == "scaling" else (step,)
    before, after = (runner(gaussian_data, without=left).judge().scores for left in (steps[1:], steps))
    assert not np.allclose(before, after, rtol=1e-3)


def test_a_family_left_out_of_the_nuisance_constants_costs_accuracy(gaussian_data: DatasetFeatures) -> None:
    rng = np.random.default_rng(5)
    x = gaussian_data.features.copy()
    x[:, 3] += rng.choice([-12, 12], len(x))
    degraded = replace(gaussian_data, features=x)
    aware, ignorant = (runner(gaussian_data, degraded, recipe="one-shot", leave_out=left, references=2).judge() for left in ((), ("jpeg",)))
    hits = [(j.scores.argmax(1) == j.truth).mean() for j in (aware, ignorant)]
    assert hits[0] > hits[1] + 0.1
    unmoved = runner(gaussian_data, recipe="one-shot", leave_out=("jpeg",)).judge()
    np.testing.assert_array_equal(unmoved.scores, runner(gaussian_data, recipe="one-shot", without=("nuisance",)).judge().scores)


def test_only_the_probe_is_degraded(gaussian_data: DatasetFeatures) -> None:
    """References are the clean pictures: degrading every picture except the probe changes nothing."""
    degraded = replace(gaussian_data, features=without(gaussian_data.features, np.arange(1, len(gaussian_data.features))))
    rows = np.array([0])
    clean, mixed = (runner(gaussian_data, probes).judge(probes=rows) for probes in (None, degraded))
    np.testing.assert_allclose(clean.scores, mixed.scores, rtol=1e-9)
    fewer = replace(gaussian_data, dataset=gaussian_data.dataset.only(np.arange(5)), features=gaussian_data.features[:5])
    with pytest.raises(ConfigError, match="changed while they were read"):
        runner(gaussian_data, fewer)


def test_without_references_probes_are_judged_by_the_gallery(gaussian_data: DatasetFeatures) -> None:
    b = runner(gaussian_data, references=0)
    assert [len(r) for r in b.references_of(5, 0, range(4))] == [0] * 4
    result = harness.closed(b, b.judge())
    assert result["accuracy"]["balanced"] > 0.6
    assert result["gallery_per_candidate"] == 4 * (12 - 3)  # the largest fold has three of twelve prompts
    lonely = dataset_features(*world(0, copies=1))
    assert accuracy(lonely, references=0) > 0.4


def test_gallery_pictures_can_replace_resyntheses(gaussian_data: DatasetFeatures) -> None:
    arbitrary = runner(gaussian_data, recipe="one-shot", references=5, policy="arbitrary")
    for rows in arbitrary.references_of(7, 0, range(4)):
        assert len(set(rows)) == 5
        assert gaussian_data.dataset.prompt[7] not in gaussian_data.dataset.prompt[rows]
    assert arbitrary.gallery_per_candidate() == 5
    assert arbitrary.gallery_at_most() == 44
    x = gaussian_data.features.copy()
    x[gaussian_data.dataset.prompt == 6] += x[7] - x[gaussian_data.dataset.prompt == 6].mean(0)  # one prompt looks like the probe's
    alike = replace(gaussian_data, features=x, last=None)
    for rows in runner(alike, recipe="one-shot", references=4, policy="aligned").references_of(7, 0, range(4)):
        assert set(gaussian_data.dataset.prompt[rows]) == {6}


def test_more_captions_in_a_batch_prior_improve_accuracy(gaussian_data: DatasetFeatures) -> None:
    alone, one_shot = (runner(gaussian_data, **s).judge().scores for s in ({"recipe": "together", "together": 1}, {"recipe": "one-shot"}))
    np.testing.assert_allclose(alone, one_shot)
    few, many = (accuracy(gaussian_data, recipe="together", together=n) for n in (2, None))
    assert many > few
    everyone = runner(gaussian_data, recipe="together", together=12).judge().scores
    np.testing.assert_allclose(everyone, runner(gaussian_data, recipe="together").judge().scores, rtol=1e-6)
    assert [runner(gaussian_data, recipe="together", together=n).captions_together() for n in (None, 5, 99)] == [12, 5, 12]


def test_shared_spaces_do_not_change_a_score(gaussian_data: DatasetFeatures) -> None:
    spaces = Spaces(gaussian_data, CONSTANTS)
    settings = [{}, {"without": ("own",)}, {"references": 2}, {"recipe": "one-shot"}, {"leave_out": ("jpeg",)}, {"seed": 3}, {}]
    for setting in settings:
        shared, own = (runner(gaussian_data, spaces=s, draws=1, **setting).judge().scores for s in (spaces, None))
        np.testing.assert_array_equal(shared, own)


def test_folds_keep_a_group_together(gaussian_data: DatasetFeatures) -> None:
    of = folds(gaussian_data.dataset, 0)
    assert len(np.unique(of)) == 5
    assert all(len(np.unique(of[gaussian_data.dataset.group == q])) == 1 for q in range(12))
    assert (folds(gaussian_data.dataset, 1) != of).any()
    single = dataset_features(*world(0, prompts=1))
    assert runner(single).gallery_per_candidate() == 0
    assert np.isfinite(runner(single).judge().scores).all()
