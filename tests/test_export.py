"""Tiny pipelines with random weights, exported and verified: what the exporter promises of every bundle."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
onnx = pytest.importorskip("onnx")
transformers = pytest.importorskip("transformers")

from resynth_fast.bundle import OBJECTS, Bundle  # noqa: E402
from resynth_fast.candidates.engine import EngineCandidate  # noqa: E402
from resynth_fast.engines import EnginePool  # noqa: E402
from resynth_fast.errors import BundleError, ConfigError  # noqa: E402
from resynth_fast.export import graphs, pipelines, verify  # noqa: E402

STEPS = (2, 4)
PROMPTS = ("a red house by the sea", "", "far too many words " * 9)


def tokenizer() -> Any:
    """A CLIP tokenizer that knows letters alone."""
    letters = [chr(c) for c in range(ord("a"), ord("z") + 1)]
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{c}</w>" for c in letters)]
    return transformers.CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=16)


def text_encoder() -> Any:
    config = transformers.CLIPTextConfig(
        vocab_size=54, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=16,
        projection_dim=16, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    return transformers.CLIPTextModel(config).eval()


def autoencoder() -> Any:
    return diffusers.AutoencoderKL(
        block_out_channels=(8, 8), norm_num_groups=4, layers_per_block=1, latent_channels=4, sample_size=16, shift_factor=0.25,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2, scaling_factor=0.5,
    )  # fmt: skip


def stable_diffusion(scheduler: Any) -> Any:
    torch.manual_seed(0)
    unet = diffusers.UNet2DConditionModel(
        sample_size=8, block_out_channels=(8, 16), layers_per_block=1, norm_num_groups=4, attention_head_dim=4, cross_attention_dim=16,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )  # fmt: skip
    return diffusers.StableDiffusionPipeline(
        vae=autoencoder(), unet=unet, text_encoder=text_encoder(), tokenizer=tokenizer(), scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def flux(guidance_embeds: bool) -> Any:
    torch.manual_seed(1)
    transformer = diffusers.FluxTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=16, pooled_projection_dim=16, axes_dims_rope=(2, 2, 4), guidance_embeds=guidance_embeds,
    )  # fmt: skip
    return diffusers.FluxPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True), vae=autoencoder(), transformer=transformer,
        text_encoder=text_encoder(), tokenizer=tokenizer(), text_encoder_2=text_encoder(), tokenizer_2=tokenizer(),
    )  # fmt: skip


NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
MAKERS = {
    "sd": lambda: stable_diffusion(diffusers.EulerAncestralDiscreteScheduler(**NOISE)),  # draws noise at every step
    "flux": lambda: flux(guidance_embeds=True),
}


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {}
    for name, make in MAKERS.items():
        folders[name] = tmp_path_factory.mktemp("checkpoints") / name
        make().save_pretrained(folders[name], safe_serialization=True)
    return folders


def export(folder: Path, to: Path) -> Bundle:
    return pipelines.export(folder, to, name=folder.name, licence="Apache-2.0", steps=STEPS, guidance_scale=3.0, prompts=PROMPTS)


@pytest.fixture(scope="module")
def exported(checkpoints: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    """Exporting verifies components and whole pictures, or raises."""
    to = tmp_path_factory.mktemp("bundles")
    return {name: export(folder, to) for name, folder in checkpoints.items()}


@pytest.mark.parametrize("name", MAKERS)
def test_a_pipeline_becomes_a_bundle_that_the_runtime_opens(name: str, exported: dict[str, Bundle]) -> None:
    bundle = exported[name]
    bundle.verify()
    assert bundle.kind == "generator"
    assert (bundle.latents, bundle.resolution_px) == ((4, 8, 8), (16, 16))
    assert set(bundle.components) == {"text", "denoiser", "decoder"}
    assert list(bundle.components["denoiser"].inputs)[:2] == ["latents", "timestep"]
    assert bundle.components["decoder"].outputs["image"].shape == ("batch", 3, 16, 16)
    assert set(bundle.lineage) == {"text_encoder", "denoiser", "autoencoder"}
    assert [len(bundle.step_table(n).rows) for n in STEPS] == list(STEPS)
    assert bundle.guidance.mode == {"sd": "batch-2", "flux": "none"}[name]
    assert len(bundle.tokenizers) == {"sd": 1, "flux": 2}[name]  # the tiny FLUX has two different encoders


@pytest.mark.parametrize("name", MAKERS)
def test_pictures_do_not_depend_on_their_batch(name: str, exported: dict[str, Bundle]) -> None:
    candidate = EngineCandidate(exported[name], EnginePool())
    together = candidate.make(list(PROMPTS), [5, 6, 7], 2)
    for picture, prompt, seed in zip(together, PROMPTS, (5, 6, 7), strict=True):
        assert np.abs(picture.astype(int) - candidate.make([prompt], [seed], 2)[0]).max() <= 1


def test_the_same_weights_exported_twice_give_the_same_bundle(
    checkpoints: dict[str, Path], exported: dict[str, Bundle], tmp_path: Path
) -> None:
    again = export(checkpoints["sd"], tmp_path)
    assert again.sha256 == exported["sd"].sha256
    assert {f.sha256 for f in again.files()} == {f.sha256 for f in exported["sd"].files()}


@pytest.mark.parametrize("name", MAKERS)
def test_graphs_tell_nothing_of_the_machine(name: str, exported: dict[str, Bundle]) -> None:
    for file in exported[name].files():
        content = file.read()
        assert not re.search(rb"/(root|home|tmp|work|usr)/|\.py\b|site-packages", content)
        if file.path.suffix == ".onnx":
            model = onnx.load_from_string(content)
            assert not model.metadata_props
            assert not any(node.doc_string or node.metadata_props for node in model.graph.node)
            assert all(re.fullmatch(r"n\d+|w\d+\.cast", node.name) for node in model.graph.node)
    assert str(Path.home()) not in json.dumps(dict(exported[name].manifest))


def test_files_stand_among_the_objects_and_are_shared(exported: dict[str, Bundle]) -> None:
    bundle = exported["sd"]
    assert [path.name for path in bundle.folder.iterdir()] == ["bundle.json"]
    assert all(file.path.parent.name == OBJECTS for file in bundle.files())
    assert not [path for path in bundle.folder.parent.iterdir() if path.name.startswith(".")]


def test_large_weights_are_stored_in_16_bits_without_loss() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(32, 32), torch.nn.GELU(), torch.nn.Linear(32, 4))
    graphs.round_weights(module)

    class Wrapped(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = module
            self.table = torch.arange(32 * 32).reshape(32, 32) / 7  # no float16 holds these

        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return self.inner(pixels @ self.table)

    network = graphs.Network(Wrapped(), lambda b: {"pixels": torch.rand(b, 32)}, ("taps",))
    model = onnx.load_from_string(graphs.export(network))
    kinds = {tuple(w.dims): w.data_type for w in model.graph.initializer if np.prod(w.dims) >= 1024}
    stored = [w.data_type for w in model.graph.initializer if np.prod(w.dims) == 1024]
    assert sorted(stored) == sorted([onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT]), kinds


def test_a_bundle_that_differs_is_not_written(checkpoints: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphs, "export", _with_noise(graphs.export))
    with pytest.raises(BundleError, match=r"'text' differs from torch.*nothing was written"):
        export(checkpoints["sd"], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_picture_that_is_not_finite_is_refused() -> None:
    with pytest.raises(BundleError, match="nothing was written"):
        verify._require(float("nan"), 1.0, "x")


def test_a_pipeline_of_no_known_family_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text('{"_class_name": "DiTPipeline"}')
    with pytest.raises(ConfigError, match=r"DiTPipeline.*FluxPipeline, StableDiffusionPipeline"):
        export(tmp_path, tmp_path)
    with pytest.raises(ConfigError, match="no diffusers pipeline"):
        export(tmp_path / "absent", tmp_path)


def _with_noise(original: Any) -> Any:
    """An exporter that damages the weights on the way."""

    def damaged(network: graphs.Network) -> bytes:
        model = onnx.load_from_string(original(network))
        for tensor in model.graph.initializer:
            if tensor.data_type == onnx.TensorProto.FLOAT16:
                tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) * np.float16(1.1), tensor.name))
        return model.SerializeToString()

    return damaged
