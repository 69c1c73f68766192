"""A gallery as a cache of resyntheses: found again to the bit, and generated only where the policy allows it."""

import json
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from resynth_fast import Attributor, images
from resynth_fast.errors import ConfigError
from resynth_fast.gallery import Entry, Gallery, Layout
from resynth_fast.images.copies import windows
from resynth_fast.report import record
from resynth_fast.resynthesis.executor import Executor
from resynth_fast.types import Request

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.png"))[:2]
QUICK = {"references": 2, "steps": 2, "threads": 1}


@pytest.fixture
def probes():
    return [images.read(path) for path in EXAMPLES]


@pytest.fixture
def folder(tmp_path: Path):
    return tmp_path / "gallery"


def attributor(folder, policy="both", **changes):
    return Attributor.open(gallery=folder, policy=policy, **{**QUICK, **changes})


def answers(verdicts):
    """The records of the probes without times and without the origin of the pictures."""
    found = [record.of("probe", v, v.captioner, "extractor", "tap", 2) for v in verdicts]
    return [{**r, "timing_ms": {}, "provenance": {k: v for k, v in r["provenance"].items() if k != "gallery"}} for r in found]


def gallery_of(verdict):
    return verdict.provenance["gallery"]


def never(self, requests, deadline=None):
    assert not list(requests), "a picture was asked for"
    return {}


def test_a_cached_resynthesis_is_found_again_to_the_bit(folder: Any, probes: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = Attributor.open(**QUICK)(probes)
    first = attributor(folder)(probes)
    monkeypatch.setattr(Executor, "__call__", never)
    for policy in ("both", "look-up"):
        again = attributor(folder, policy)(probes)
        assert answers(plain) == answers(first) == answers(again)
        for before, now in zip(first, again, strict=True):
            assert [gallery_of(v)["looked_up"] for v in (before, now)] == [0, 8]
            assert [gallery_of(v)["generated"] for v in (before, now)] == [8, 0]
            assert gallery_of(before)["forecast_s"] > 0 == gallery_of(now)["forecast_s"]
            for a, b in zip(before.candidates, now.candidates, strict=True):
                np.testing.assert_array_equal([r.pixels for r in a.resyntheses], [r.pixels for r in b.resyntheses])


@pytest.mark.parametrize("change", [{"seed": 5}, {"steps": 4}])
def test_every_setting_that_changes_a_picture_changes_its_key(folder: Any, probes: Any, change: Any) -> None:
    attributor(folder)(probes[:1])
    [verdict] = attributor(folder, **change)(probes[:1])
    assert gallery_of(verdict)["looked_up"] == 0


def test_only_missing_resyntheses_are_generated(folder: Any, probes: Any) -> None:
    attributor(folder, references=1)(probes[:1])
    [verdict] = attributor(folder, references=2)(probes[:1])
    assert (gallery_of(verdict)["looked_up"], gallery_of(verdict)["generated"]) == (4, 4)
    assert answers([verdict]) == answers(Attributor.open(**QUICK)(probes[:1]))


def test_a_race_uses_the_cache(folder: Any, probes: Any) -> None:
    plain = Attributor.open(race=True, **QUICK)(probes)
    attributor(folder, race=True)(probes)
    again = attributor(folder, race=True)(probes)
    assert answers(plain) == answers(again)
    assert all(gallery_of(v)["generated"] == 0 for v in again)


def test_a_damaged_picture_is_set_aside_and_generated_again(folder: Any, probes: Any) -> None:
    first = attributor(folder)(probes[:1])
    some = sorted(folder.glob("pictures/*/*.png"))[0]
    some.write_bytes(some.read_bytes()[:-20])
    again = attributor(folder)(probes[:1])
    assert [v.label for v in first] == [v.label for v in again]
    scores = [[c.score for c in v.candidates] for v in (*first, *again)]
    np.testing.assert_allclose(*scores, rtol=1e-3)  # one picture is generated in another batch
    assert gallery_of(again[0])["generated"] == 1
    assert some.exists()
    assert some.with_suffix(".damaged").exists()
    assert gallery_of(attributor(folder)(probes[:1])[0])["generated"] == 0


def test_a_resynthesis_by_a_fallback_is_not_cached(folder: Any, probes: Any) -> None:
    asked = attributor(folder)
    asked.pool.fallbacks.append("another ran instead")
    asked(probes[:1])
    with Gallery.open(folder) as gallery:
        assert len(gallery) == 0


def test_resyntheses_of_probes_are_fitted_only_where_named(folder: Any, probes: Any) -> None:
    attributor(folder)(probes[:1])
    with Gallery.open(folder) as gallery:
        assert len(gallery.snapshot()) == 0
        assert len(gallery.snapshot(["resyntheses"])) == 8


def given(folder, names, probe=None):
    """A gallery of pictures by the zoo's candidates for a few captions, with the caption of `probe` among them if there is one."""
    maker = Attributor.open(**QUICK)
    captions = ["a photo of a woman", "a photo of a man with a beard", "a cartoon face with glasses"]
    made = maker.references.executor([Request(name, text, 100 + i) for name in names for i, text in enumerate(captions)])
    with Gallery.create(folder, Layout.of(maker.space)) as gallery:
        entries = [Entry(generator=r.candidate, picture_sha256=f"{i:064x}", prompt=r.prompt) for i, r in enumerate(made)]
        gallery.add(entries, maker.space.features([found.pixels for found in made.values()]))
        if probe:
            gallery.add([Entry(generator=names[0], picture_sha256=probe.sha256)], maker.space.features([probe.pixels]))


def test_without_generation_pictures_of_similar_content_are_the_references(
    folder: Any, probes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = list(Attributor.open().candidates)
    given(folder, names, probes[0])
    monkeypatch.setattr(Executor, "__call__", never)
    asked = attributor(folder, "look-up")
    [verdict] = asked(probes[:1])
    assert gallery_of(verdict) | {"forecast_s": 0} == {
        "policy": "look-up",
        "looked_up": 0,
        "generated": 0,
        "similar_content": names,
        "forecast_s": 0,
    }
    assert gallery_of(verdict)["forecast_s"] > 0
    assert any("similar content" in warning for warning in verdict.warnings)
    features = asked.space.features([probes[0].pixels])[0]
    own = asked.references.given(probes[0].sha256, windows(probes[0].pixels))
    [alike] = asked.references.cache.similar_content(features[None], 2, [{match.row for match in own}])
    assert {len(found) for found in alike.values()} == {2}
    assert not any(np.array_equal(row, features) for found in alike.values() for row in found), "the probe stood for its own generator"


def test_a_candidate_without_any_picture_is_an_error(folder: Any, probes: Any) -> None:
    names = list(Attributor.open().candidates)
    given(folder, names[:-1])
    with pytest.raises(ConfigError, match=f"no picture by {names[-1]}; add some .* or let it generate"):
        attributor(folder, "look-up")(probes[:1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"policy": "both"}, "policy is 'both': it looks into a gallery; name one with --gallery"),
        ({"policy": "sometimes"}, "policy is 'sometimes'; it must be generate, look-up, both"),
        ({"policy": "look-up", "race": True}, "policy look-up generates nothing; leave out"),
    ],
)
def test_a_policy_that_cannot_be_followed_is_refused(options: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Attributor.open(**options)


def test_the_record_counts_references_from_the_gallery(folder: Any, probes: Any) -> None:
    schema = json.loads(resources.files("resynth_fast").joinpath("schemas/record.schema.json").read_text())
    for verdict in attributor(folder)(probes[:1]):
        jsonschema.validate(record.document([record.of("probe", verdict, verdict.captioner, "e", "t", 2)]), schema)
