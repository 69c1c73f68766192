"""The main job on the embedded zoo, through the library and through the command line."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from resynth_fast import Attributor, zoo
from resynth_fast.candidates import find
from resynth_fast.engines.pool import EnginePool
from resynth_fast.errors import BundleError, ConfigError
from resynth_fast.report import record
from resynth_fast.scheduler import plan
from resynth_fast.types import Request

PROMPT = "flat vector portrait of a smiling person with tan skin, long red hair, wearing blue clothes, mint background"


@pytest.fixture(scope="module")
def pool():
    return EnginePool(threads=1)


@pytest.fixture(scope="module")
def probe_file(pool: Any, tmp_path_factory: pytest.TempPathFactory):
    [candidate] = find(["zoo:zoo-flux"], pool)
    path = tmp_path_factory.mktemp("probe") / "probe.png"
    Image.fromarray(candidate.make([PROMPT], [1 << 40], 20)[0]).save(path)
    return path


@pytest.mark.parametrize("name", ["zoo-sd", "zoo-sd-twin", "zoo-sd-v", "zoo-flux"])
def test_a_picture_does_not_depend_on_its_batch_or_order(pool: Any, name: str) -> None:
    [candidate] = find([f"zoo:{name}"], pool)
    prompts, seeds = zoo.prompts()[:8], list(range(8))
    together = candidate.make(prompts, seeds, 4)
    backwards = candidate.make(prompts[::-1], seeds[::-1], 4)[::-1]
    alone = [candidate.make([p], [s], 4)[0] for p, s in zip(prompts, seeds, strict=True)]
    for a, b, c in zip(together, backwards, alone, strict=True):
        assert np.abs(a.astype(int) - b).max() <= 1
        assert np.abs(a.astype(int) - c).max() <= 1
    assert np.abs(together[0].astype(int) - together[1]).mean() > 5


@pytest.mark.parametrize("race", [False, True])
def test_a_record_does_not_depend_on_earlier_or_concurrent_calls(race: Any) -> None:
    attributor = Attributor.open(references=2, steps=1, threads=1, race=race)
    files = pictures(3)

    def records(asked):
        found = [record.of(str(f), v, v.captioner, "", "", 1) for f, v in zip(asked, attributor(asked), strict=True)]
        return {f: {key: value for key, value in r.items() if key != "timing_ms"} for f, r in zip(asked, found, strict=True)}

    def shuffled(seed):
        order = np.random.default_rng(seed).permutation(len(files)).tolist()
        parts = [order[i : i + 1 + seed] for i in range(0, len(files), 1 + seed)]
        return {f: r for part in parts for f, r in records([files[i] for i in part]).items()}

    alone = {f: r for file in files for f, r in records([file]).items()}
    with ThreadPoolExecutor(4) as threads:
        for found in threads.map(shuffled, range(3)):
            assert found == alone  # to the last bit
    attributor = Attributor.open(references=2, steps=1, threads=3, race=race)
    assert attributor.pool.lanes.count == 3
    assert records(files) == alone


def test_the_flux_probe_is_attributed_to_it(probe_file: Any) -> None:
    [verdict] = Attributor.open(references=4, threads=1)([probe_file])
    assert verdict.candidates[0].name == "zoo-flux"
    assert abs(sum(c.probability for c in verdict.candidates) - 1) < 1e-9
    assert all(len(c.resyntheses) == 4 for c in verdict.candidates)


def test_weights_that_are_not_finite_are_an_error_never_a_label(tmp_path: Path, pool: Any) -> None:
    import hashlib
    import shutil

    shutil.copytree(zoo.FOLDER / "zoo-sd-v", tmp_path / "broken")
    shutil.copytree(zoo.FOLDER / "objects", tmp_path / "objects")
    manifest = json.loads((tmp_path / "broken" / "bundle.json").read_text())
    entry = manifest["components"]["denoiser"]
    model = onnx.load(str(tmp_path / "objects" / (entry["sha256"] + ".onnx")))
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype == np.float16:
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.full_like(values, np.nan), tensor.name))
    content = model.SerializeToString()
    (tmp_path / "broken" / "denoiser.onnx").write_bytes(content)
    entry.update(file="denoiser.onnx", sha256=hashlib.sha256(content).hexdigest())
    (tmp_path / "broken" / "bundle.json").write_text(json.dumps(manifest))
    [candidate] = find([str(tmp_path / "broken")], pool)
    with pytest.raises(BundleError, match="not finite"):
        candidate.make([PROMPT], [0], 2)


def test_a_plan_generates_equal_requests_once_within_its_rows() -> None:
    requests = [Request(c, "p", s) for c in "ab" for s in range(11)] * 2
    waves = plan(requests, max_rows=4).waves
    assert len([r for w in waves for r in w.requests]) == 22
    assert {r for w in waves for r in w.requests} == set(requests)
    assert all(len(w.requests) <= 4 and {r.candidate for r in w.requests} == {w.candidate} for w in waves)


def test_an_option_out_of_range_is_named() -> None:
    with pytest.raises(ConfigError, match="references is 0; it must be 1 … 64"):
        Attributor.open(references=0)


def resynth(*arguments):
    return subprocess.run(
        [sys.executable, "-P", "-m", "resynth_fast.cli", *map(str, arguments)], capture_output=True, text=True, check=False
    )


def test_the_command_line_prints_one_document_and_writes_a_page(probe_file: Any, tmp_path: Path) -> None:
    page = tmp_path / "out.html"
    done = resynth("attribute", probe_file, "--references", 1, "--steps", 4, "--format", "json", "--report", page)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    document = json.loads(done.stdout)
    assert document["schema_version"] == 3
    [record] = document["records"]
    assert record["verdict"]["status"] in ("attributed", "inconclusive", "unknown")
    assert len(record["candidates"]) == 4
    assert "data:image/png" in page.read_text()


def test_a_recorded_prompt_can_be_the_caption(probe_file: Any, tmp_path: Path) -> None:
    info = PngInfo()
    info.add_text("parameters", f"{PROMPT}\nSteps: 20, Seed: 3, CFG scale: 3, Model: claimed")
    Image.open(probe_file).save(tmp_path / "a.png", pnginfo=info)
    done = resynth("attribute", tmp_path / "a.png", probe_file, "--caption", "metadata", "-k", 1, "--steps", 1, "--format", "json")
    assert done.returncode == 0, done.stderr
    recorded, described = json.loads(done.stdout)["records"]
    assert (recorded["evidence"]["caption"], recorded["evidence"]["captioner"]) == (PROMPT, "metadata")
    assert recorded["metadata"]["generation"]["model"] == "claimed"
    assert recorded["verdict"]["label"] != "claimed"
    assert described["evidence"]["captioner"] == "tagger"
    assert any("no prompt is recorded" in warning for warning in described["warnings"])


def test_good_and_bad_files_all_get_records(probe_file: Any, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"not a picture")
    (tmp_path / "good.png").write_bytes(probe_file.read_bytes())
    done = resynth("attribute", tmp_path, "--references", 1, "--steps", 2, "--format", "jsonl")
    assert done.returncode == 1
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [r["error"] is None for r in records] == [False, True]
    assert set(records[0]) == set(records[1])


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["attribute", "x.png", "--format", "xml"], 2),
        (["attribute", "x.png", "--references", "0"], 2),
        (["attribute", "x.png", "--candidates", "/nowhere"], 3),
        (["attribute", "x.png", "--candidates", "acme=/nowhere"], 2),
        (["attribute", "x.png", "--candidates", "acme=http://api.example"], 2),
        (["attribute", "x.png", "--caption", "metdata"], 2),
        (["candidates", "show", "acme=/nowhere"], 2),
        (["attribute", "x.png", "--backend", "abacus"], 2),
        (["candidates", "list", "--format", "json", "--verify"], 0),
        (["doctor", "--json"], 0),
    ],
)
def test_each_kind_of_failure_has_its_exit_code(arguments: Any, code: Any) -> None:
    done = resynth(*arguments)
    assert done.returncode == code, done.stderr


def test_attribution_never_imports_torch(probe_file: Any) -> None:
    program = (
        "import sys; from resynth_fast import Attributor; "
        f"Attributor.open(references=1, steps=1, threads=1)([{str(probe_file)!r}]); "
        "print([m for m in ('torch', 'diffusers', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def pictures(count):
    folder = Path(__file__).parents[1] / "examples"
    return [folder / f"{i:02}.png" for i in range(2, 2 + count)]


def test_pictures_of_one_source_share_one_verdict_from_their_summed_scores() -> None:
    alone = Attributor.open(references=1, steps=2, threads=1)(pictures(3))
    joint = Attributor.open(references=1, steps=2, threads=1, same_source=True)(pictures(3))
    total = {name: sum(c.score for v in alone for c in v.candidates if c.name == name) for name in (c.name for c in alone[0].candidates)}
    for verdict in joint:
        assert {c.name: c.score for c in verdict.candidates} == pytest.approx(total)
        assert any("declared to come from one generator" in warning for warning in verdict.warnings)


def test_a_batch_prior_uses_the_other_probes_resyntheses_but_never_the_probes() -> None:
    attributor = Attributor.open(references=1, steps=2, threads=1, together=True)
    three, reordered = attributor(pictures(3)), attributor(pictures(3)[::-1])
    for verdict, again in zip(three, reordered[::-1], strict=True):
        assert [c.name for c in verdict.candidates] == [c.name for c in again.candidates]
        assert [c.score for c in verdict.candidates] == pytest.approx([c.score for c in again.candidates])
    [one] = attributor(pictures(1))
    [plain] = Attributor.open(references=1, steps=2, threads=1)(pictures(1))
    assert [c.score for c in one.candidates] == pytest.approx([c.score for c in plain.candidates])
    assert [c.score for c in three[0].candidates] != pytest.approx([c.score for c in one.candidates])


def test_a_batch_prior_and_a_gallery_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match="leave out race"):
        Attributor.open(references=1, together=True, race=True)
