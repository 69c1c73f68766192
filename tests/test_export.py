"""Tiny pipelines with random weights, exported and verified: what the exporter promises of every family and bundle."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
onnx = pytest.importorskip("onnx")
transformers = pytest.importorskip("transformers")

from resynth_fast.backends.onnx_model import OnnxModel  # noqa: E402
from resynth_fast.bundle import OBJECTS, Bundle  # noqa: E402
from resynth_fast.candidates.engine import EngineCandidate  # noqa: E402
from resynth_fast.cli import __main__ as cli  # noqa: E402
from resynth_fast.engines.pool import EnginePool  # noqa: E402
from resynth_fast.errors import BundleError, ConfigError, DeviceError  # noqa: E402
from resynth_fast.export import families, graphs, pipelines, tiny, verify, weights  # noqa: E402
from resynth_fast.export.verify import Parity  # noqa: E402

STEPS = (2, 4)
PROMPTS = ("a red house by the sea", "", "far too many words " * 9, "Capital Letters")
FAMILIES = sorted(tiny.FAMILIES)
EMBEDDED = {"flux", "latent-consistency"}
"""Families whose denoiser takes the guidance scale; the others call it for two rows a picture."""


@pytest.fixture(scope="module", autouse=True)
def shared_graphs() -> Iterator[None]:
    """A network that was exported once is not traced again: variants of a pipeline share most of their graphs."""
    original, made = graphs.export, {}

    def export(network: graphs.Network, path: Path, *, halved: bool = True) -> OnnxModel:
        key = _fingerprint(network, halved)
        if key not in made:
            made[key] = original(network, path, halved=halved).graph
        path.write_bytes(made[key])
        return OnnxModel(made[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(graphs, "export", export)
        patch.setattr(graphs, "untouched_export", original, raising=False)
        yield


def _fingerprint(network: graphs.Network, halved: bool) -> str:
    module = network.module
    digest = hashlib.sha256(f"{module!r} {halved} {network.optimize} {network.outputs}".encode())
    plain = {f"{name}.{key}": value for name, part in module.named_modules() for key, value in vars(part).items()}
    digest.update(repr({key: value for key, value in plain.items() if isinstance(value, (int, float, str, type(None)))}).encode())
    for name, tensor in (*module.named_parameters(), *module.named_buffers(), *network.example(2).items()):
        digest.update(f"{name} {tuple(tensor.shape)}".encode() + tensor.detach().numpy().tobytes())
    return digest.hexdigest()


def save(pipeline: Any, folder: Path) -> Path:
    pipeline.save_pretrained(folder, safe_serialization=True)
    return folder


def export(folder: Path, to: Path, **settings: Any) -> Bundle:
    return pipelines.export(folder, to, name=folder.name, licence="Apache-2.0", steps=STEPS, prompts=PROMPTS, **settings)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("checkpoints")
    return {name: save(make(), folder / name) for name, make in tiny.FAMILIES.items()}


@pytest.fixture(scope="module")
def parities() -> dict[str, Parity]:
    return {}


@pytest.fixture(scope="module")
def bundle_of(
    checkpoints: dict[str, Path], parities: dict[str, Parity], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Bundle]:
    """The bundle of a family. Exporting verifies components and whole pictures, or raises."""
    to, made = tmp_path_factory.mktemp("bundles"), {}

    def get(name: str) -> Bundle:
        if name not in made:
            parities[name] = Parity()
            made[name] = export(checkpoints[name], to, parity=parities[name])
        return made[name]

    return get


def run(*arguments: Any) -> Any:
    """The command line, in this process."""
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments], catch_exceptions=False)


def test_every_family_has_a_tiny_pipeline() -> None:
    assert families.names() == FAMILIES


@pytest.mark.parametrize("name", FAMILIES)
def test_a_pipeline_becomes_a_bundle_that_the_runtime_opens(
    name: str, bundle_of: Callable[[str], Bundle], parities: dict[str, Parity]
) -> None:
    bundle = bundle_of(name)
    bundle.verify()
    side = 32 if name == "sana" else 16
    assert (bundle.kind, bundle.family) == ("generator", name)
    assert (bundle.latents, bundle.resolution_px) == ((4, side // 2, side // 2), (side, side))
    assert set(bundle.components) == {"text", "denoiser", "decoder"}
    assert list(bundle.components["denoiser"].inputs)[:2] == ["latents", "timestep"]
    assert bundle.components["decoder"].outputs["image"].shape == ("batch", 3, side, side)
    assert set(bundle.lineage) == {"text_encoder", "denoiser", "autoencoder"}
    assert [len(bundle.step_table(n).rows) for n in STEPS] == list(STEPS)
    assert bundle.guidance.mode == ("embedded" if name in EMBEDDED else "batch-2")
    assert max(parities[name].components.values()) <= 1e-4
    assert max(parities[name].pictures.values()) <= 2 / 255


@pytest.mark.parametrize("name", FAMILIES)
def test_pictures_do_not_depend_on_their_batch(name: str, bundle_of: Callable[[str], Bundle]) -> None:
    candidate = EngineCandidate(bundle_of(name), EnginePool())
    together = candidate.make(list(PROMPTS), [5, 6, 7, 8], 2)
    for picture, prompt, seed in zip(together, PROMPTS, (5, 6, 7, 8), strict=True):
        assert np.abs(picture.astype(int) - candidate.make([prompt], [seed], 2)[0]).max() <= 1


@pytest.mark.parametrize("name", FAMILIES)
def test_captions_and_noise_reach_the_picture(name: str, bundle_of: Callable[[str], Bundle]) -> None:
    """Else a comparison with diffusers would compare two constants."""
    candidate = EngineCandidate(bundle_of(name), EnginePool())
    first, other_words, other_seed = (p.astype(int) for p in candidate.make([PROMPTS[0], PROMPTS[2], PROMPTS[0]], [5, 5, 6], 4))
    assert np.abs(first - other_words).max() >= 4
    assert np.abs(first - other_seed).mean() >= 4


@pytest.mark.parametrize("name", FAMILIES)
def test_a_picture_is_attributed_to_what_was_exported(name: str, bundle_of: Callable[[str], Bundle], tmp_path: Path) -> None:
    bundle = bundle_of(name)
    probe = tmp_path / "probe.png"
    Image.fromarray(EngineCandidate(bundle, EnginePool()).make(["a red house"], [3], 4)[0]).resize((64, 64)).save(probe)
    done = run("attribute", probe, "--candidates", bundle.folder, "--references", 1, "--steps", 2, "--format", "json")
    assert done.exit_code == 0, done.output
    [record] = json.loads(done.stdout)["records"]
    assert record["error"] is None
    [candidate] = record["candidates"]
    assert (candidate["name"], candidate["family"]) == (name, name)


def test_the_same_weights_exported_twice_give_the_same_bundle(
    checkpoints: dict[str, Path], bundle_of: Callable[[str], Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = bundle_of("pixart-sigma")
    monkeypatch.setattr(graphs, "export", graphs.untouched_export)
    again = export(checkpoints["pixart-sigma"], tmp_path)
    assert again.sha256 == before.sha256
    assert {f.sha256 for f in again.files()} == {f.sha256 for f in before.files()}


@pytest.mark.parametrize("name", FAMILIES)
def test_graphs_hold_no_path_or_name_of_the_machine(name: str, bundle_of: Callable[[str], Bundle]) -> None:
    bundle = bundle_of(name)
    for file in bundle.files():
        content = file.read()
        assert not re.search(rb"/(root|home|tmp|work|usr)/|\.py\b|site-packages", content)
        if file.path.suffix == ".onnx":
            model = onnx.load_from_string(content)
            assert not model.metadata_props
            assert not any(node.doc_string or node.metadata_props for node in model.graph.node)
            assert all(re.fullmatch(r"n\d+|w\d+\.cast", node.name) for node in model.graph.node)
    assert str(Path.home()) not in json.dumps(dict(bundle.manifest))


def test_bundles_share_files_through_the_object_store(bundle_of: Callable[[str], Bundle]) -> None:
    bundle = bundle_of("pixart-sigma")
    assert [path.name for path in bundle.folder.iterdir()] == ["bundle.json"]
    assert all(file.path.parent.name == OBJECTS for file in bundle.files())
    assert not [path for path in bundle.folder.parent.iterdir() if path.name.startswith(".")]


# Variants share their graphs with the bundles above.
VARIANTS: dict[str, tuple[Callable[[], Any], dict[str, Any], dict[str, Any]]] = {
    "rescaled": (tiny.stable_diffusion_xl, {"guidance_scale": 6.0, "guidance_rescale": 0.7}, {"mode": "rescaled", "rescale": 0.7}),
    "Turbo": (
        lambda: tiny.stable_diffusion_xl(diffusers.EulerAncestralDiscreteScheduler(**tiny.NOISE, timestep_spacing="trailing")),
        {"guidance_scale": 0.0},
        {"mode": "none"},
    ),
    "latents with a mean and a deviation": (
        lambda: tiny.stable_diffusion_xl(latents_mean=[0.1, -0.2, 0.3, 0.0], latents_std=[1.5, 0.5, 2.0, 1.0]),
        {},
        {"unconditional": "zeros"},
    ),
    "v-prediction": (
        lambda: tiny.stable_diffusion(diffusers.DPMSolverMultistepScheduler(**tiny.NOISE, prediction_type="v_prediction")),
        {"guidance_scale": 3.0},
        {"mode": "batch-2", "scale": 3.0},
    ),
    "no T5": (tiny.stable_diffusion_3_without_t5, {}, {"mode": "batch-2", "scale": 7.0}),
    "schnell, which embeds no guidance": (lambda: tiny.flux(guidance_embeds=False), {}, {"mode": "none", "scale": 1.0}),
    "TCD, to which pipelines pass an eta of 0": (
        lambda: tiny.stable_diffusion(diffusers.TCDScheduler(**tiny.NOISE)),
        {},
        {"mode": "batch-2", "scale": 7.5},
    ),
    "PNDM, as Stable Diffusion 1 came": (
        lambda: tiny.stable_diffusion(diffusers.PNDMScheduler(**tiny.NOISE, skip_prk_steps=True, steps_offset=1)),
        {},
        {"mode": "batch-2", "scale": 7.5},
    ),
}

FAMILY_OF = {
    "StableDiffusionXLPipeline": "stable-diffusion-xl",
    "StableDiffusion3Pipeline": "stable-diffusion-3",
    "FluxPipeline": "flux",
}


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_of_guidance_and_sampler_give_the_pictures_of_diffusers(
    name: str, bundle_of: Callable[[str], Bundle], tmp_path: Path
) -> None:
    make, settings, guidance = VARIANTS[name]
    bundle_of(FAMILY_OF.get(type(make()).__name__, "stable-diffusion"))
    parity = Parity()
    bundle = export(save(make(), tmp_path / "variant"), tmp_path / "bundles", parity=parity, **settings)
    assert set(parity.pictures) == set(STEPS), "pictures are compared at every number of steps"
    assert max(parity.pictures.values()) <= 2 / 255
    for key, value in guidance.items():
        assert getattr(bundle.guidance, key) == value


def test_pictures_are_compared_without_the_watermark_that_a_pipeline_adds(
    checkpoints: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where invisible-watermark is installed, diffusers' SDXL pipeline changes its pictures after the decoder."""
    from diffusers.pipelines.stable_diffusion_xl import pipeline_stable_diffusion_xl as module

    monkeypatch.setattr(module, "is_invisible_watermark_available", lambda: True)
    monkeypatch.setattr(module, "StableDiffusionXLWatermarker", _Inverted, raising=False)
    assert diffusers.StableDiffusionXLPipeline.from_pretrained(checkpoints["stable-diffusion-xl"]).watermark is not None
    start = np.random.default_rng(0).standard_normal((1, 4, 8, 8)).astype(np.float32)
    marked = families.load(checkpoints["stable-diffusion-xl"], None)
    monkeypatch.undo()
    plain = families.load(checkpoints["stable-diffusion-xl"], None)
    assert start.shape[1:] == plain.latents
    assert np.array_equal(marked.reference(["a house"], start, 2), plain.reference(["a house"], start, 2))


class _Inverted:
    """A watermark that nobody overlooks."""

    def apply_watermark(self, images: Any) -> Any:
        return -images


@pytest.mark.parametrize(
    ("name", "settings", "named"),
    [
        ("flux", {"guidance_rescale": 0.5}, "'rescaled' is refused.*flux embeds"),
        ("pixart-sigma", {"guidance_rescale": 0.5}, "'rescaled'.*pixart-sigma has no such setting"),
        ("stable-diffusion", {"guidance_rescale": 0.5, "guidance_scale": 1.0}, "not above 1"),
        ("stable-diffusion", {"guidance_scale": float("nan")}, "guidance scale is nan"),
        ("stable-diffusion", {"guidance_rescale": 2.0}, "rescale is 2.0; it must be 0"),
        ("stable-diffusion", {"precision": "int8"}, "precision is 'int8'; it must be fp16 or fp32"),
    ],
)
def test_impossible_guidance_and_precision_are_refused_by_name(
    name: str, settings: dict[str, Any], named: str, checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=named):
        export(checkpoints[name], tmp_path, **settings)
    assert list(tmp_path.iterdir()) == []


def test_large_weights_are_stored_in_16_bits_without_loss(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(32, 32), torch.nn.GELU(), torch.nn.Linear(32, 4))
    weights.round_weights(module)

    class Wrapped(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module
            self.table = torch.arange(32 * 32).reshape(32, 32) / 7  # no float16 holds these

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return self.inner(pixels @ self.table)

    network = graphs.Network(Wrapped(), lambda b: {"pixels": torch.rand(b, 32, generator=torch.Generator().manual_seed(b))}, ("taps",))
    model = onnx.load_from_string(graphs.export(network, tmp_path / "halved.onnx").graph)
    kinds = {tuple(w.dims): w.data_type for w in model.graph.initializer if np.prod(w.dims) >= 1024}
    stored = [w.data_type for w in model.graph.initializer if np.prod(w.dims) == 1024]
    assert sorted(stored) == sorted([onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT]), kinds
    whole = onnx.load_from_string(graphs.export(network, tmp_path / "whole.onnx", halved=False).graph)
    assert onnx.TensorProto.FLOAT16 not in {w.data_type for w in whole.graph.initializer}


def test_weights_that_16_bits_cannot_hold_keep_their_values() -> None:
    module = torch.nn.Linear(32, 32, bias=False)
    with torch.no_grad():
        module.weight[0, 0] = 1e6
    before = module.weight.clone()
    weights.round_weights(module)
    assert torch.equal(module.weight, before)


@pytest.mark.usefixtures("bundle_of")
def test_a_bundle_that_differs_is_not_written(checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "export", _with_noise(graphs.export))
    with pytest.raises(BundleError, match=r"'text' differs from torch.*nothing was written"):
        export(checkpoints["pixart-sigma"], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_picture_that_is_not_finite_is_refused() -> None:
    with pytest.raises(BundleError, match="nothing was written"):
        verify._require(float("nan"), 1.0, "x")


def test_a_pipeline_of_no_known_family_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "DiTPipeline"}')
    with pytest.raises(ConfigError, match=r"DiTPipeline.*FluxPipeline.*StableDiffusionPipeline"):
        export(tmp_path, tmp_path)
    with pytest.raises(ConfigError, match="not a diffusers pipeline"):
        export(tmp_path / "absent", tmp_path)


def test_the_command_line_exports_lists_and_verifies(
    checkpoints: dict[str, Path], bundle_of: Callable[[str], Bundle], tmp_path: Path
) -> None:
    bundle_of("pixart-sigma")
    done = run(
        "export",
        "generator",
        checkpoints["pixart-sigma"],
        "--to",
        tmp_path,
        "--name",
        "mine",
        "--licence",
        "CC0",
        "--steps",
        "1,2",
        "--guidance-scale",
        2.5,
        "--format",
        "json",
    )
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    bundle = Bundle.open(Path(report["bundle"]))
    assert (bundle.name, bundle.licence, bundle.guidance.scale) == ("mine", "CC0", 2.5)
    assert set(report["components"]) == set(report["seconds"]) == {"text", "denoiser", "decoder"}
    again = run("export", "verify", bundle.folder, checkpoints["pixart-sigma"], "--format", "json")
    assert json.loads(again.stdout)["pictures"] == report["pictures"]
    with pytest.raises(BundleError, match="was exported from a checkpoint with SHA-256"):
        run("export", "verify", bundle.folder, checkpoints["flux"])
    with pytest.raises(ConfigError, match=r"name '\.\./mine' must be letters"):
        run("export", "generator", checkpoints["flux"], "--to", tmp_path, "--name", "../mine")
    with pytest.raises(ConfigError, match="--steps is 'two'"):
        run("export", "generator", checkpoints["flux"], "--to", tmp_path, "--steps", "two")

    found = json.loads(run("export", "list", "--format", "json").stdout)
    assert [family["name"] for family in found["families"]] == FAMILIES
    assert set(found) == {"families", "schedulers", "extractors", "captioners"}


def test_without_torch_the_exporter_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "resynth_fast.export.pipelines", None)
    with pytest.raises(DeviceError, match=r"pip install 'resynth-fast\[export\]'"):
        run("export", "generator", tmp_path, "--to", tmp_path)


def _with_noise(original: Any) -> Any:
    """An exporter that damages the weights on the way."""

    def damaged(network: graphs.Network, path: Path, *, halved: bool = True) -> OnnxModel:
        model = onnx.load_from_string(original(network, path, halved=halved).graph)
        for tensor in model.graph.initializer:
            if tensor.data_type == onnx.TensorProto.FLOAT16:
                tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) * np.float16(1.1), tensor.name))
        path.write_bytes(model.SerializeToString())
        return OnnxModel(path.read_bytes())

    return damaged
