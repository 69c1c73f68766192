"""ONNX image encoders as extractors: taps, cutting, dequantising, batch mates, constants; small encoders with random weights."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from PIL import Image
from transformers import (
    BitImageProcessorPil,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    Dinov2Config,
    Dinov2Model,
    Siglip2VisionConfig,
    Siglip2VisionModel,
    SiglipImageProcessorPil,
    SiglipVisionConfig,
    SiglipVisionModel,
)
from transformers.models.siglip2.image_processing_pil_siglip2 import convert_image_to_patches
from typer.testing import CliRunner

from resynth_fast.bundle import Bundle
from resynth_fast.cli.__main__ import app
from resynth_fast.engines.pool import EnginePool
from resynth_fast.errors import BundleError, ConfigError
from resynth_fast.export import encoders, extractors, preprocessing
from resynth_fast.extractors.space import open_space

# torch's older exporter writes the graphs that most published encoders come in; it warns of its age, and of tracing.
pytestmark = [pytest.mark.filterwarnings("ignore::DeprecationWarning"), pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")]

BLOCKS, WIDTH, SIDE = 4, 32, 32
COMMON = {"hidden_size": WIDTH, "num_hidden_layers": BLOCKS, "num_attention_heads": 4, "image_size": SIDE, "patch_size": 8}
ENCODERS = {
    "clip": (CLIPVisionModelWithProjection, CLIPVisionConfig(**COMMON, intermediate_size=64, projection_dim=24)),
    "dinov2": (Dinov2Model, Dinov2Config(**COMMON, mlp_ratio=2)),
    "siglip": (SiglipVisionModel, SiglipVisionConfig(**COMMON, intermediate_size=64)),
}


class Wrapped(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, pixel_values):
        output = self.model(pixel_values=pixel_values)
        return output.image_embeds if "image_embeds" in output else output.pooler_output


@pytest.fixture(scope="module", params=sorted(ENCODERS))
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """(torch model, its ONNX file)"""
    torch.manual_seed(0)
    kind, config = ENCODERS[request.param]
    model = kind(config).eval()
    path = tmp_path_factory.mktemp("encoder") / f"{request.param}.onnx"
    example = torch.randn(2, 3, SIDE, SIDE)
    torch.onnx.export(
        Wrapped(model),
        (example,),
        path,
        input_names=["pixel_values"],
        output_names=["embedding"],
        opset_version=17,
        dynamo=False,
        dynamic_axes={"pixel_values": {0: "batch"}, "embedding": {0: "batch"}},
    )
    return model, path


def run(graph, pixels):
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"pixels": pixels}), strict=True))


def pictures(count=3, side=SIDE):
    return np.random.default_rng(count).random((count, 3, side, side)).astype(np.float32)


def normalised(pixels):
    mean, std = (np.array(v, np.float32).reshape(1, 3, 1, 1) for v in (extractors.CLIP_MEAN, extractors.CLIP_STD))
    return (pixels - mean) / std


def test_taps_are_the_hidden_states_of_transformers(encoder: Any) -> None:
    model, path = encoder
    found = extractors.read(path, range(1, BLOCKS + 1), pools=("mean",) if path.stem == "siglip" else ("cls", "mean"))
    assert found.blocks == BLOCKS
    pixels = pictures()
    got = run(found.network, pixels)
    with torch.no_grad():
        states = model(pixel_values=torch.from_numpy(normalised(pixels)), output_hidden_states=True).hidden_states
    for block in range(1, BLOCKS + 1):
        expected = states[block].numpy()
        if path.stem != "siglip":
            np.testing.assert_allclose(got[f"tap_{block}"], expected[:, 0], rtol=1e-4, atol=1e-4)
            expected = expected[:, 1:]
        np.testing.assert_allclose(got[f"tap_{block}_mean"], expected.mean(1), rtol=1e-4, atol=1e-4)


def test_an_encoder_without_a_class_token_gives_the_mean_of_its_patches(encoder: Any) -> None:
    """SigLIP's first token is the top-left patch; registers are no patches either."""
    _, path = encoder
    taps = extractors.read(path, [2]).taps
    if path.stem != "siglip":
        assert taps == ("tap_2",)
        return
    assert taps == ("tap_2_mean",)
    with pytest.raises(ConfigError, match=r"no class token.*use --pool mean"):
        extractors.read(path, [2], pools=("cls",))


def test_the_whole_encoder_gives_its_own_embedding(encoder: Any) -> None:
    model, path = encoder
    pixels = pictures()
    with torch.no_grad():
        expected = Wrapped(model)(torch.from_numpy(normalised(pixels))).numpy()
    np.testing.assert_allclose(run(extractors.read(path, [1]).last, pixels)["tap_last"], expected, rtol=1e-4, atol=1e-4)


def test_the_graph_ends_at_its_last_tap(encoder: Any) -> None:
    _, path = encoder
    half, whole = (onnx.load_from_string(extractors.read(path, [tap]).network) for tap in (BLOCKS // 2, BLOCKS))
    assert len(half.graph.node) < 0.65 * len(whole.graph.node)
    assert half.ByteSize() < 0.65 * whole.ByteSize()


def test_the_same_encoder_gives_the_same_bytes(encoder: Any) -> None:
    _, path = encoder
    assert extractors.read(path, [1, 2]).network == extractors.read(path, [1, 2]).network


@pytest.fixture(scope="module")
def quantised(tmp_path_factory: pytest.TempPathFactory):
    """A CLIP tower with dynamically quantised products, and the original."""
    torch.manual_seed(0)
    kind, config = ENCODERS["clip"]
    folder = tmp_path_factory.mktemp("quantised")
    torch.onnx.export(
        Wrapped(kind(config).eval()),
        (torch.randn(2, 3, SIDE, SIDE),),
        folder / "exact.onnx",
        input_names=["pixel_values"],
        output_names=["embedding"],
        opset_version=17,
        dynamo=False,
        dynamic_axes={"pixel_values": {0: "batch"}, "embedding": {0: "batch"}},
    )
    quantize_dynamic(folder / "exact.onnx", folder / "int8.onnx", weight_type=QuantType.QUInt8, op_types_to_quantize=["MatMul"])
    return folder / "exact.onnx", folder / "int8.onnx"


def test_after_dequantisation_features_do_not_depend_on_the_batch(quantised: Any) -> None:
    exact, small = quantised
    pixels = pictures(4)
    pixels[1:] *= 3  # mates of another range move a shared scale
    kept, undone = extractors.read(small, [2], dequantise=False), extractors.read(small, [2])
    assert kept.quantised > 0
    assert undone.quantised == 0
    alone, together = run(undone.network, pixels[:1])["tap_2"], run(undone.network, pixels)["tap_2"][:1]
    np.testing.assert_allclose(alone, together, rtol=1e-5, atol=1e-6)
    alone, together = run(kept.network, pixels[:1])["tap_2"], run(kept.network, pixels)["tap_2"][:1]
    assert np.abs(alone - together).max() > 1e-4
    reference = run(extractors.read(exact, [2]).network, pixels)["tap_2"]
    np.testing.assert_allclose(run(undone.network, pixels)["tap_2"], reference, atol=0.05 * np.abs(reference).max())


def test_a_quantised_bundle_runs_picture_by_picture(quantised: Any, tmp_path: Path) -> None:
    bundle = extractors.export(
        quantised[1], tmp_path, name="kept", licence="MIT", taps=[2], dequantise=False, constants_from=dataset(tmp_path / "pictures")
    )
    assert bundle.manifest["max_batch"] == 1
    space = open_space(bundle, EnginePool(threads=1))
    some = [np.random.default_rng(i).integers(0, 256, (40, 40, 3)).astype(np.uint8) for i in range(3)]
    np.testing.assert_array_equal(space.features(some), np.concatenate([space.features([p]) for p in some]))


def dataset(root, generators=3, prompts=6, copies=3):
    """Pictures whose makers differ by the colour of their noise."""
    rng = np.random.default_rng(0)
    for p in range(prompts):
        base = rng.integers(0, 200, (8, 8, 3)).astype(np.uint8)
        for g in range(generators):
            folder = root / f"p{p}" / f"g{g}"
            folder.mkdir(parents=True)
            for k in range(copies):
                picture = np.kron(base, np.ones((8, 8, 1))) + rng.normal(0, 4 + 8 * g, (64, 64, 1))
                Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / f"{k}.png")
    return root


def test_export_writes_a_bundle_with_constants_and_calibration(encoder: Any, tmp_path: Path) -> None:
    _, path = encoder
    root = dataset(tmp_path / "pictures")
    bundle = extractors.export(path, tmp_path / "to", name="encoder", licence="MIT", taps=[2, 3], constants_from=root)
    bundle = Bundle.open(bundle.folder)
    space = open_space(bundle, EnginePool(threads=1))
    assert space.tap == ("tap_2_mean,tap_3_mean" if path.stem == "siglip" else "tap_2,tap_3")
    assert set(space.constants.nuisance) == {"jpeg", "resize", "crop", "blur"}
    assert [point.references for point in space.calibration.points] == [1, 2]
    assert space.calibration.points[0].unknown_below > -1
    own = [np.asarray(Image.open(picture).convert("RGB")) for picture in sorted(root.rglob("*.png"))]
    assert space.domain is not None
    assert np.mean([space.domain.outside(row) for row in space.features(own)]) <= 0.1
    assert all(space.domain.outside(row) for row in space.features([np.zeros((64, 64, 3), np.uint8), np.full((64, 64, 3), 255, np.uint8)]))
    assert bundle.manifest["card"]["fitted_on"].startswith("54 pictures by 3 generators of 6 prompts")
    scaled = space.constants.scaled(space.features([np.asarray(Image.open(f)) for f in sorted(root.rglob("*.png"))]))
    np.testing.assert_allclose(scaled.mean(0), 0, atol=1e-3)


def test_a_tap_outside_the_encoder_is_refused(encoder: Any) -> None:
    with pytest.raises(ConfigError, match=r"tap 9 is not a block .* it has 1 … 4"):
        extractors.read(encoder[1], [2, 9])


def test_a_graph_that_is_no_encoder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("no graph")
    with pytest.raises(ConfigError, match="cannot be read as an ONNX graph"):
        extractors.read(tmp_path / "text.onnx", [1])
    value = onnx.helper.make_tensor_value_info
    shape = ["batch", 3, 8, 8]
    relu = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", [value("x", 1, shape)], [value("y", 1, shape)])
    onnx.save(onnx.helper.make_model(relu, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8), tmp_path / "relu.onnx")
    with pytest.raises(ConfigError, match="no residual stream"):
        extractors.read(tmp_path / "relu.onnx", [1])


# --- straight from transformers -------------------------------------------------------------------------------------


def saved(folder, kind, *, whole=False, **preprocessor):
    """A checkpoint of one of the architectures, as transformers saves it, and its image encoder."""
    torch.manual_seed(0)
    if kind == "siglip2":
        config = {key: value for key, value in COMMON.items() if key != "image_size"}
        model = Siglip2VisionModel(Siglip2VisionConfig(**config, intermediate_size=64, num_patches=25)).eval()
        preprocessor = {"patch_size": 8, "max_num_patches": 16} | preprocessor
    elif whole:
        texts = {
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "vocab_size": 20,
            "projection_dim": 24,
        }
        model = CLIPModel(CLIPConfig(text_config=texts, vision_config=ENCODERS["clip"][1].to_dict(), projection_dim=24)).eval()
    else:
        model = ENCODERS[kind][0](ENCODERS[kind][1]).eval()
    model.save_pretrained(folder)
    settings = {"size": {"height": SIDE, "width": SIDE}, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]} | preprocessor
    (folder / "preprocessor_config.json").write_text(json.dumps({key: value for key, value in settings.items() if value is not None}))
    return model


def hidden_states(model, pixels):
    with torch.no_grad():
        if isinstance(model, CLIPModel):
            return model.vision_model(pixel_values=pixels, output_hidden_states=True).hidden_states
        if isinstance(model, Siglip2VisionModel):
            patches = torch.from_numpy(np.stack([convert_image_to_patches(picture.numpy(), 8) for picture in pixels]))
            shapes, mask = torch.tensor([[4, 4]] * len(pixels)), torch.ones(len(pixels), 16, dtype=torch.int32)
            return model(patches, mask, shapes, output_hidden_states=True).hidden_states
        return model(pixel_values=pixels, output_hidden_states=True).hidden_states


@pytest.mark.parametrize("kind", ["clip", "clip with text", "dinov2", "siglip", "siglip2"])
def test_taps_of_a_checkpoint_are_the_hidden_states_of_transformers(kind: Any, tmp_path: Path) -> None:
    name, _, text = kind.partition(" ")
    model = saved(tmp_path / "encoder", name, whole=bool(text))
    taps = [1, BLOCKS // 2, BLOCKS]
    token = "siglip" not in kind
    made = extractors.read_checkpoint(tmp_path / "encoder", taps, pools=("cls", "mean") if token else ("mean",))
    assert (made.blocks, made.side) == (BLOCKS, SIDE)
    pixels = pictures()
    mean, std = (np.array(v, np.float32).reshape(1, 3, 1, 1) for v in ((0.5, 0.4, 0.3), (0.2, 0.3, 0.4)))
    states = hidden_states(model, torch.from_numpy((pixels - mean) / std))
    got = run(made.network, pixels)
    for tap in taps:
        if token:
            np.testing.assert_allclose(got[f"tap_{tap}"], states[tap][:, 0], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(got[f"tap_{tap}_mean"], states[tap][:, int(token) :].mean(1), rtol=1e-4, atol=1e-4)


def test_a_checkpoint_becomes_a_bundle_by_the_command_line(tmp_path: Path) -> None:
    saved(tmp_path / "tower", "clip")
    arguments = ["export", "extractor", tmp_path / "tower", "--to", tmp_path / "to", "--taps", "2-3", "--format", "json"]
    arguments += ["--constants-from", dataset(tmp_path / "pictures"), "--working-size", "64"]
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    bundle = Bundle.open(Path(json.loads(result.stdout)["bundle"]))
    assert (bundle.name, bundle.get("source", dict)["checkpoint"]) == ("tower", "tower")
    assert open_space(bundle, EnginePool(threads=1)).tap == "tap_2,tap_3"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / "preprocessor_config.json").unlink(), "has no preprocessor_config.json"),
        (lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"), "is a pickle"),
        (lambda folder: (folder / "model.safetensors").unlink(), "has no weights"),
        (
            lambda folder: (folder / "config.json").write_text('{"model_type": "bert"}'),
            "a model of type 'bert'; the exporter supports clip",
        ),
        (lambda folder: (folder / "config.json").unlink(), "not a checkpoint that can be read"),
        (lambda folder: (folder / "preprocessor_config.json").write_text('{"size": 48}'), "pictures of 48 px, but its config takes 32 px"),
        (lambda folder: (folder / "more.safetensors").symlink_to("/etc/hostname"), "a link to outside"),
    ],
    ids=["no processor", "pickle", "no weights", "other kind", "no config", "other size", "link"],
)
def test_a_checkpoint_that_cannot_be_exported_is_refused_and_nothing_written(tmp_path: Path, spoil: Any, said: Any) -> None:
    saved(tmp_path / "encoder", "clip")
    spoil(tmp_path / "encoder")
    with pytest.raises(ConfigError, match=said):
        extractors.export(tmp_path / "encoder", tmp_path / "to", name="x", licence="MIT", taps=[1])
    assert not (tmp_path / "to").exists()


def test_a_checkpoint_whose_graph_gives_something_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path / "encoder", "clip")
    made = encoders.export(tmp_path / "encoder", tmp_path / "encoder.onnx")
    made.module.model.vision_model.encoder.layers[0].mlp.fc1.weight.data.mul_(2)  # as if the exporter had gone wrong

    def export(folder, path):
        shutil.copy(tmp_path / "encoder.onnx", path)
        return made

    monkeypatch.setattr(encoders, "export", export)
    with pytest.raises(BundleError, match="tap_1 differs from transformers by"):
        extractors.read_checkpoint(tmp_path / "encoder", [1])


def test_preprocessing_is_read_as_transformers_writes_it(tmp_path: Path) -> None:
    for i, processor in enumerate(
        (CLIPImageProcessorPil(), SiglipImageProcessorPil(), BitImageProcessorPil(crop_size=140, size={"shortest_edge": 160}))
    ):
        processor.save_pretrained(tmp_path / str(i))
    found = [preprocessing.read(tmp_path / str(i)) for i in range(3)]
    assert [(f.side, f.cropped, f.mean[0]) for f in found] == [(224, True, 0.48145466), (224, False, 0.5), (140, True, 0.48145466)]
    assert found[1].std == (0.5, 0.5, 0.5)
