"""References of several guidance scales: drawn as asked for, never mixed up, and scored as pictures of one candidate."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from resynth_fast import Attributor, zoo
from resynth_fast.bundle import Guidance
from resynth_fast.candidates.engine import EngineCandidate
from resynth_fast.engines.pool import EnginePool
from resynth_fast.errors import ConfigError
from resynth_fast.gallery.cache import ResynthesisCache
from resynth_fast.gallery.entry import ResynthesisKey, key_of
from resynth_fast.options import GUIDANCE, Options
from resynth_fast.scheduler import BatchKey, EngineRef, Wave, Work, plan
from resynth_fast.scoring.score import best, best_guidance, score, score_parts
from resynth_fast.types import Request

STEPS = 4
MULTIPLES = (0.0, 0.5, 1.0, 2.0)


@pytest.fixture(scope="module")
def pool() -> EnginePool:
    return EnginePool(threads=1)


@pytest.fixture(scope="module")
def candidate(pool: EnginePool) -> EngineCandidate:
    return EngineCandidate(zoo.bundle("zoo-sd-v"), pool)


def drawn(candidate: EngineCandidate, prompts: list[str], seeds: list[int], guidance: float) -> np.ndarray[Any, Any]:
    device, pictures = candidate.draw(prompts, seeds, STEPS, guidance)
    return np.asarray(device.to_host(pictures))


@pytest.mark.parametrize("mode", ["batch-2", "rescaled"])
def test_a_multiple_scales_the_guidance_and_zero_leaves_out_its_second_row(mode: str) -> None:
    own = Guidance(mode, 3.0, 0.7, "zeros")
    assert own.scaled(1.0) == own
    assert own.scaled(2.0) == Guidance(mode, 6.0, 0.7, "zeros")
    assert not own.scaled(0.0).doubled


@pytest.mark.parametrize("mode", ["none", "embedded"])
def test_guidance_that_is_not_there_or_in_the_graph_keeps_its_scale(mode: str) -> None:
    assert all(Guidance(mode, 3.5).scaled(multiple) == Guidance(mode, 3.5) for multiple in MULTIPLES)


def test_a_picture_has_the_guidance_that_is_asked_for(candidate: EngineCandidate, pool: EnginePool) -> None:
    prompts, seeds = zoo.prompts()[:3], [5, 6, 7]
    pictures = {multiple: drawn(candidate, prompts, seeds, multiple) for multiple in MULTIPLES}
    for multiple, found in pictures.items():
        exported = EngineCandidate(zoo.bundle("zoo-sd-v"), pool)
        own = exported.bundle.guidance
        alone = Guidance("none", 1.0) if not multiple else replace(own, scale=own.scale * multiple)
        exported.bundle.__dict__["guidance"] = alone  # as if the bundle had been exported with this guidance
        np.testing.assert_array_equal(found, exported.make(prompts, seeds, STEPS))
    for one, other in itertools.combinations(MULTIPLES, 2):
        assert np.abs(pictures[one].astype(int) - pictures[other]).mean() > 0.5, (one, other)


def test_guidance_does_not_depend_on_the_rest_of_the_call(candidate: EngineCandidate) -> None:
    prompts, seeds = zoo.prompts()[:4], [1, 2, 3, 4]
    for multiple in (0.0, 2.0):
        together = drawn(candidate, prompts, seeds, multiple)
        alone = [drawn(candidate, [p], [s], multiple)[0] for p, s in zip(prompts, seeds, strict=True)]
        assert np.abs(together.astype(int) - np.stack(alone)).max() <= 1


@given(st.permutations([(s, m) for s in range(3) for m in MULTIPLES]), st.integers(1, 4), st.integers(1, 2))
def test_a_wave_has_one_guidance_and_its_forecast_is_of_it(order: Any, max_rows: int, lanes: int) -> None:
    key = BatchKey("c", (64, 64), "float32", Guidance("batch-2", 3.0), 8)
    work = Work(key, EngineRef("text", 5), EngineRef("denoiser", 9), EngineRef("decoder", 1), 8, 2, in_lane=lanes > 1)
    requests = [Request("c", "p", seed, multiple) for seed, multiple in order]
    made = plan(requests * 2, {"c": work}, max_rows=max_rows, lanes=lanes)
    waves = [wave for wave in made.waves if isinstance(wave, Wave)]
    assert sorted(map(repr, itertools.chain(*(wave.requests for wave in waves)))) == sorted(map(repr, requests))
    row_s = work.uses(1, _costs())[0].seconds / 2
    for wave in waves:
        [multiple] = {request.guidance for request in wave.requests}
        assert wave.key is not None
        assert wave.key.guidance == Guidance("batch-2", 3.0).scaled(multiple)
        assert wave.uses[0].seconds == pytest.approx(len(wave.requests) * row_s * (2 if multiple else 1))
    assert len({(wave.key, wave.requests[0].guidance) for wave in waves}) == len(MULTIPLES)


def _costs() -> Any:
    from resynth_fast.scheduler import CostTable

    return CostTable()


def test_references_take_the_guidance_in_turn_where_the_candidate_has_one() -> None:
    executor = Attributor.open(["zoo:zoo-sd", "zoo:zoo-flux"], references=8, threads=1).references.executor
    assert executor.guidance("zoo-sd") == (1.0, 1.0, 1.0, 1.0, 2.0, 0.0, 2.0, 0.0)
    assert executor.guidance("zoo-flux") == (1.0,) * 8
    assert [(r.seed, r.guidance) for r in executor.references("zoo-sd", "p")] == list(enumerate(executor.guidance("zoo-sd")))


@pytest.mark.parametrize("guidance", [(), (0, 1), (1, -1), (1, 11), (1, float("nan"))])
def test_a_wrong_guidance_is_refused(guidance: Any) -> None:
    with pytest.raises(ConfigError, match=r"guidance is .* it must be multiples of a candidate's own guidance scale"):
        Options(guidance=guidance)


def test_the_cache_tells_guidance_apart(candidate: EngineCandidate) -> None:
    own = ResynthesisKey.of(candidate.bundle, "", seed=0, steps=STEPS, backend="b")
    cache = ResynthesisCache(gallery=None, origins={candidate.name: own})  # type: ignore[arg-type]
    requests = [Request(candidate.name, "p", 0, multiple) for multiple in MULTIPLES]
    keys = cache._keys(requests)
    assert len({key_of(key) for key in keys.values()}) == len(MULTIPLES)
    assert keys[Request(candidate.name, "p", 0)] == replace(own, prompt="p")


def world(
    seed: int, candidates: int = 4, dimension: int = 30, copies: int = 2
) -> tuple[Any, list[list[Any]], list[list[list[float]]], Any]:
    """Probes (candidates × 3 guidance scales, 1, d) and, for each, references of three scales whose effect differs by candidate."""
    rng = np.random.default_rng(seed)
    mean = rng.normal(size=(candidates, dimension)) * 0.5
    effect = rng.normal(size=(candidates, dimension)) * 1.5 + 2 * rng.normal(size=dimension)
    shift = {0.0: -1.0, 1.0: 0.0, 2.0: 1.0}
    labels = [m for m in (1.0, 0.0, 2.0) for _ in range(copies)]
    points, references = [], []
    for truth, multiple in itertools.product(range(candidates), shift):
        content = rng.normal(size=dimension) * 3
        points.append((content + mean[truth] + shift[multiple] * effect[truth] + 0.3 * rng.normal(size=dimension))[None])
        references.append(
            [
                np.stack([content + mean[g] + shift[m] * effect[g] + 0.3 * rng.normal(size=dimension) for m in labels])
                for g in range(candidates)
            ]
        )
    truth = np.repeat(np.arange(candidates), len(shift))
    return np.stack(points), references, [[labels] * candidates] * len(points), truth


def test_a_probe_of_another_guidance_finds_its_candidate_in_the_part_of_its_side() -> None:
    hits: dict[str, list[float]] = {"parts": [], "pooled": [], "own": []}
    sides = []
    for seed in range(20):
        points, references, guidance, truth = world(seed)
        own = [[rows[:2] for rows in of_probe] for of_probe in references]
        for name, made in (
            ("parts", score(points, references, guidance=guidance)),
            ("pooled", score(points, references)),
            ("own", score(points, own)),
        ):
            hits[name].append(float((made.scores[:, 0].argmax(1) == truth).mean()))
        parts = score_parts(points, references, guidance=guidance)
        for i in range(len(points)):
            of_one = best_guidance([type(p)(p.scores[i : i + 1], p.consistency[i : i + 1]) for p in parts])
            sides.append((i % 3, of_one[truth[i]]))
    accuracy = {name: float(np.mean(shares)) for name, shares in hits.items()}
    assert accuracy["parts"] > accuracy["own"] + 0.1
    assert accuracy["parts"] > accuracy["pooled"] + 0.05
    assert np.mean([side == "weaker" for i, side in sides if i == 0]) > 0.9
    assert np.mean([side == "stronger" for i, side in sides if i == 2]) > 0.9


def test_a_candidate_has_the_score_of_its_better_part() -> None:
    points, references, guidance, _ = world(3)
    weak, strong = (score(points, [[rows[keep] for rows in of_probe] for of_probe in references]) for keep in ([0, 1, 2, 3], [0, 1, 4, 5]))
    found = score(points, references, guidance=guidance)
    np.testing.assert_array_equal(found.scores, np.maximum(weak.scores, strong.scores))
    np.testing.assert_array_equal(found.consistency, np.maximum(weak.consistency, strong.consistency))


@given(st.integers(0, 50), st.permutations(range(6)))
def test_scores_do_not_depend_on_the_order_of_references_or_probes(seed: int, order: Any) -> None:
    points, references, guidance, _ = world(seed)
    found = score(points, references, guidance=guidance)
    shuffled = score(
        points[::-1],
        [[rows[list(order)] for rows in of_probe] for of_probe in references[::-1]],
        guidance=[[[row[i] for i in order] for row in of_probe] for of_probe in guidance],
    )
    np.testing.assert_allclose(shuffled.scores[::-1], found.scores, rtol=1e-9)


def test_own_guidance_alone_is_scored_as_before_and_a_side_without_pictures_has_all() -> None:
    points, references, _, _ = world(4)
    plain = score(points, references)
    same = score_parts(points, references, guidance=[[[1.0] * 6] * 4] * len(points))
    assert len(same) == 1
    np.testing.assert_array_equal(same[0].scores, plain.scores)
    assert best_guidance(same) == ("",) * 4
    weak = [[[0.0] * 6] * 4] * len(points)  # only such pictures were at hand
    np.testing.assert_array_equal(best(score_parts(points, references, guidance=weak)).scores, plain.scores)


def test_a_verdict_says_which_guidance_fits_best(pool: EnginePool, tmp_path: Path) -> None:
    attributor = Attributor.open(["zoo:zoo-sd-v", "zoo:zoo-flux"], references=6, steps=STEPS, threads=1)
    generator = EngineCandidate(zoo.bundle("zoo-sd-v"), pool)
    fits: dict[float, list[str]] = {}
    for multiple in (0.0, 2.0):
        files = []
        for i, pixels in enumerate(drawn(generator, zoo.prompts()[:6], [(1 << 40) + i for i in range(6)], multiple)):
            files.append(tmp_path / f"{multiple}-{i}.png")
            Image.fromarray(pixels).save(files[-1])
        verdicts = attributor(files)
        of_name = [{c.name: c for c in verdict.candidates} for verdict in verdicts]
        assert all([r.guidance for r in by["zoo-sd-v"].resyntheses] == list(GUIDANCE[:6]) for by in of_name)
        assert all({r.guidance for r in by["zoo-flux"].resyntheses} == {1.0} for by in of_name)
        assert {by["zoo-flux"].best_guidance for by in of_name} == {""}  # all its references are of one guidance
        fits[multiple] = [by["zoo-sd-v"].best_guidance for by in of_name]
    assert fits[0.0].count("weaker") >= 5
    assert fits[2.0].count("stronger") >= 5
