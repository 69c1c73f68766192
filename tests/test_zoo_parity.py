"""Every generator of the zoo beside the torch pipeline that its bundle gives back: components, pictures, step tables, batches."""

from __future__ import annotations

import functools
import gc
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
onnx = pytest.importorskip("onnx")

from resynth_fast import Attributor, zoo  # noqa: E402
from resynth_fast.bundle import Bundle  # noqa: E402
from resynth_fast.candidates.engine import EngineCandidate  # noqa: E402
from resynth_fast.engines.pool import EnginePool  # noqa: E402
from resynth_fast.errors import BundleError, ConfigError  # noqa: E402
from resynth_fast.export import bundles, families, graphs, verify  # noqa: E402
from resynth_fast.export.replay import drawing  # noqa: E402
from resynth_fast.export.zoo import restore  # noqa: E402
from resynth_fast.sampling import walk  # noqa: E402

pytestmark = pytest.mark.slow

NAMES = [bundle.name for bundle in (*zoo.candidates(), *zoo.withheld())]
DRIFT = 1e-3  # of a cosine


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pipelines")


@pytest.fixture(scope="session")
def restored(folder: Path) -> Any:
    """name → the generator as the exporter sees it, restored, written by diffusers and read again; each once a session."""

    @functools.cache
    def get(name: str) -> families.Generator:
        bundle = zoo.bundle(name)
        gc.disable()  # which takes a sixth of an export's time
        try:
            return families.load(restore.save(bundle, folder), bundle.guidance.scale)
        finally:
            gc.enable()

    return get


@pytest.fixture(scope="module")
def pool() -> EnginePool:
    return EnginePool(threads=1)


@pytest.mark.parametrize("name", NAMES)
def test_components_compute_what_torch_does(name: str, restored: Any) -> None:
    errors = verify.components(zoo.bundle(name), restored(name).networks)
    assert set(errors) == {"text", "denoiser", "decoder"}
    assert max(errors.values()) <= 1e-4, errors


@pytest.mark.parametrize("name", NAMES)
def test_the_manifest_counts_what_torch_counts(name: str, restored: Any) -> None:
    counted = {part: graphs.flops(network) for part, network in restored(name).networks.items()}
    assert counted == {part: component.flops for part, component in zoo.bundle(name).components.items()}


@pytest.mark.parametrize("steps", [8, 4])
@pytest.mark.parametrize("name", NAMES)
def test_pictures_are_those_of_diffusers_own_pipeline(name: str, steps: int, restored: Any) -> None:
    assert verify.pictures(zoo.bundle(name), restored(name), [*zoo.prompts()[:2], ""], steps) <= 2 / 255


@pytest.mark.parametrize("name", NAMES)
def test_stored_step_tables_walk_as_the_noise_scheduler_does(name: str, restored: Any) -> None:
    generator, bundle = restored(name), zoo.bundle(name)
    rng = np.random.default_rng(3)
    noises = rng.standard_normal((32, 2, *bundle.latents)).astype(np.float32)
    [tables] = bundle.manifest["step_tables"].values()
    for steps in map(int, tables):
        expected = own_loop(generator.scheduler, pipelines_arguments(generator, steps), noises)
        found = walk(bundle.step_table(steps), lambda call: noises[call], denoise)
        assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max(), f"{steps} steps"


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_of_a_batch_of_eight_is_as_similar_as_one_generated_alone(name: str, pool: EnginePool) -> None:
    candidate, space = EngineCandidate(zoo.bundle(name), pool), Attributor.open(threads=1).space
    prompts, seeds = zoo.prompts()[:8], list(range(8))
    order = np.random.default_rng(1).permutation(8)
    together = space(candidate.make(prompts, seeds, 8))
    shuffled = space(candidate.make([prompts[i] for i in order], [seeds[i] for i in order], 8))[np.argsort(order)]
    alone = space([candidate.make([p], [s], 8)[0] for p, s in zip(prompts, seeds, strict=True)])
    for batched in (together, shuffled):
        assert np.abs(cosines(batched, batched) - cosines(alone, alone)).max() <= DRIFT
        assert cosines(batched, alone).diagonal().min() >= 1 - DRIFT


def test_a_label_does_not_depend_on_its_batch_or_order(pool: EnginePool, tmp_path: Path) -> None:
    probes = [tmp_path / f"{i}.png" for i in range(8)]
    for i, probe in enumerate(probes):
        candidate = EngineCandidate(zoo.bundle(NAMES[i % len(NAMES)]), pool)
        Image.fromarray(candidate.make([zoo.prompts()[i]], [(1 << 40) + i], 8)[0]).save(probe)
    attributor = Attributor.open(threads=1, references=1, steps=4)
    order = np.random.default_rng(2).permutation(8)
    alone = [attributor([probe])[0] for probe in probes]
    together = attributor(probes)
    shuffled = dict(zip(order.tolist(), attributor([probes[i] for i in order]), strict=True))
    assert len({verdict.candidates[0].name for verdict in alone}) > 1
    for i, verdict in enumerate(alone):
        for other in (together[i], shuffled[i]):
            assert (other.status, other.label, other.caption) == (verdict.status, verdict.label, verdict.caption)
            assert other.candidates[0].name == verdict.candidates[0].name
            assert abs(other.consistency - verdict.consistency) <= DRIFT


def test_restored_weights_exported_again_give_the_committed_files(restored: Any, tmp_path: Path) -> None:
    """Text encoder, decoder and tokenizer; a denoiser takes long, and restoring it has compared all of its graph but the weights."""
    bundle, generator = zoo.bundle(NAMES[0]), restored(NAMES[0])
    for component in ("text", "decoder"):
        made = graphs.export(generator.networks[component], tmp_path / "component.onnx")
        assert hashlib.sha256(made.graph).hexdigest() == bundle.components[component].file.sha256
    [entry] = generator.text_inputs
    assert bundles._tokenizer(tmp_path, 0, entry)["sha256"] == bundle.tokenizers[0].file.sha256


def test_weights_that_a_bundle_lacks_are_restored_as_nan(restored: Any) -> None:
    vae = restored(NAMES[0]).networks["decoder"].module.vae
    for name, parameter in vae.named_parameters():
        assert bool(torch.isfinite(parameter).all()) == (not name.startswith(("encoder.", "quant_conv."))), name


@pytest.mark.parametrize(
    ("weights", "places"),
    [
        ({}, 0),
        ({"w0": np.arange(6, dtype=np.float32)[::-1]}, 0),
        ({"w0": np.arange(6, dtype=np.float32), "w1": np.arange(6, dtype=np.float16).reshape(3, 2)}, 2),
    ],
    ids=["absent", "disordered", "twice"],
)
def test_a_parameter_that_is_not_one_tensor_of_the_graph_is_refused(weights: dict[str, Any], places: int) -> None:
    with pytest.raises(BundleError, match=f"some network: parameter 'body.weight' has {places} positions in the graph instead of one"):
        restore._positions({"body.weight": np.arange(6, dtype=np.float32).reshape(2, 3)}, weights, "some network")


def test_a_parameter_is_found_under_any_permutation_of_its_axes() -> None:
    parameter = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float16).astype(np.float32)
    weight = parameter.transpose(2, 0, 1).reshape(1, 8, 3).astype(np.float16)
    place = restore._positions({"p": parameter}, {"w0": np.zeros(24, np.float32), "w1": weight}, "x")["p"]
    np.testing.assert_array_equal(restore._restored(weight, place, parameter.shape), parameter)


@pytest.mark.parametrize(
    ("component", "tensor", "message"),
    [
        ("text", lambda weights: max(weights, key=lambda w: np.prod(w.dims)), "restored text_encoder is not the exported one"),
        ("decoder", lambda weights: min(weights, key=lambda w: np.prod(w.dims)), "component 'decoder': a constant differs"),
    ],
)
def test_a_bundle_with_other_numbers_is_not_restored(component: str, tensor: Any, message: str, restored: Any, tmp_path: Path) -> None:
    restored(NAMES[0])  # an architecture is exported once a session
    shutil.copytree(zoo.FOLDER / NAMES[0], tmp_path / NAMES[0])
    shutil.copytree(zoo.FOLDER / "objects", tmp_path / "objects")
    manifest = json.loads((tmp_path / NAMES[0] / "bundle.json").read_text())
    entry = manifest["components"][component]
    model = onnx.load(str(tmp_path / "objects" / (entry["sha256"] + ".onnx")))
    chosen = tensor([w for w in model.graph.initializer if w.data_type != onnx.TensorProto.INT64])
    values = onnx.numpy_helper.to_array(chosen).copy()
    values.flat[0] = np.nextafter(values.flat[0], values.dtype.type(np.inf))
    chosen.raw_data = values.tobytes()
    content = model.SerializeToString(deterministic=True)
    (tmp_path / NAMES[0] / f"{component}.onnx").write_bytes(content)
    entry.update(file=f"{component}.onnx", sha256=hashlib.sha256(content).hexdigest())
    (tmp_path / NAMES[0] / "bundle.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=message):
        restore.restore(Bundle.open(tmp_path / NAMES[0]))


def test_a_bundle_without_a_recipe_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"no recipe for 'tagger'; there are recipes for zoo-"):
        restore.restore(zoo.bundle("tagger"))


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a / np.linalg.norm(a, axis=1, keepdims=True)) @ (b / np.linalg.norm(b, axis=1, keepdims=True)).T


def denoise(latents: np.ndarray, timestep: float) -> np.ndarray:
    """A model that is neither linear nor the same at every step."""
    return np.tanh(np.roll(latents, 1, axis=1) + np.float32(np.sin(timestep)))


def own_loop(scheduler: Any, arguments: dict[str, Any], noises: np.ndarray) -> np.ndarray:
    """The loop of diffusers' pipelines; noise as the runtime numbers it, by model call."""
    scheduler.set_timesteps(**arguments)
    x, call = torch.from_numpy(noises[0]) * float(getattr(scheduler, "init_noise_sigma", 1.0)), 0
    with drawing(scheduler, lambda shape: torch.from_numpy(noises[call])):
        for t in scheduler.timesteps:
            call += 1
            scaled = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
            x = scheduler.step(torch.from_numpy(denoise(scaled.numpy(), float(t))), t, x).prev_sample
    return x.numpy()


class Asked(Exception):
    """Carries what a pipeline asks its noise scheduler for, and ends the pipeline there."""


def pipelines_arguments(generator: families.Generator, steps: int) -> dict[str, Any]:
    """What diffusers' pipeline passes to `set_timesteps` for `steps`."""
    original = generator.scheduler.set_timesteps

    @functools.wraps(original)  # pipelines look at the signature
    def asked(*positional: Any, **named: Any) -> None:
        raise Asked({**dict(zip(["num_inference_steps"], positional, strict=False)), **named})

    with mock.patch.object(generator.scheduler, "set_timesteps", asked), pytest.raises(Asked) as caught:
        generator.reference(["a face"], np.zeros((1, *generator.latents), np.float32), steps)
    arguments: dict[str, Any] = caught.value.args[0]
    return arguments


def test_the_naive_loop_of_the_benchmark_gives_our_pictures(restored: Any, folder: Path) -> None:
    for bundle in zoo.candidates():
        restored(bundle.name)
    rows = {row["case"]: row for row in benchmark("end_to_end", "--pipelines", folder)}
    [(case, labels)] = [(case, row) for case, row in rows.items() if case.startswith("the same label by the paper's comparison")]
    assert float(case.split("differ by ")[1].split()[0]) < DRIFT
    assert labels["ratio"] == 1
    assert all(row["ours"] > 0 and row["peer"] > 0 for row in rows.values() if row["unit"] in ("ms a probe", "MB"))


def test_the_benchmark_of_growing_work_counts_pictures() -> None:
    assert [(row["case"], row["unit"]) for row in benchmark("scaling")] == [("probes 1x2x1 to 2x2x1", "ms a picture")]


def benchmark(name: str, *arguments: object) -> list[dict[str, Any]]:
    """Rows of `benchmarks/bench_<name>.py --quick`."""
    script = Path(__file__).parents[1] / "benchmarks" / f"bench_{name}.py"
    done = subprocess.run([sys.executable, script, "--quick", "--json", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]
