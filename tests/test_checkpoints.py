"""A false or harmful checkpoint is refused by name before any library reads it, and nothing is written."""

from __future__ import annotations

import json
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file  # noqa: E402

from resynth_fast.errors import ConfigError  # noqa: E402
from resynth_fast.export import canonical, checkpoints, families, pipelines, tiny  # noqa: E402

UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("honest") / "checkpoint"
    tiny.stable_diffusion().save_pretrained(folder, safe_serialization=True)
    return folder


@pytest.fixture
def checkpoint(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "checkpoint"))


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


class Bomb:
    """Unpickled, it would leave a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


def renamed_weights(name: str) -> Callable[[Path], None]:
    """A further tensor `name` in the U-Net's weights."""

    def change(folder: Path) -> None:
        save_file({**load_file(folder / UNET), name: torch.ones(1)}, folder / UNET)

    return change


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (renamed_weights("conv_in.scale_weight"), r"conv_in\.scale_weight belongs to scaled 8-bit weights"),
        (renamed_weights("mid.to_k.lora_A.default.weight"), "belongs to a LoRA that is not fused.*fuse_lora"),
        (lambda f: save_file({"x": torch.ones(1)}, f / "pytorch_lora_weights.safetensors"), "is a LoRA, which the pipeline does not load"),
        (lambda f: edit(f / "unet" / "config.json", quantization_config={"quant_method": "bitsandbytes"}), "quantised .bitsandbytes"),
        (lambda f: edit(f / "unet" / "config.json", sample_size=None), "sample_size of the UNet2DConditionModel is None"),
        (lambda f: edit(f / "unet" / "config.json", sample_size=[8, 12]), r"sample_size .* is \[8, 12\]"),
        (
            lambda f: edit(f / "tokenizer" / "tokenizer_config.json", model_max_length=10**30),
            "no model_max_length; set it in tokenizer_config",
        ),
    ],
)
def test_what_would_be_silently_ignored_or_is_not_said_is_refused_with_its_reason(
    checkpoint: Path, change: Callable[[Path], Any], named: str
) -> None:
    change(checkpoint)
    with pytest.raises(ConfigError, match=named):
        families.load(checkpoint, None)


def test_a_textual_inversion_of_several_vectors_is_refused() -> None:
    pipeline = tiny.stable_diffusion()
    canonical.TextInput(tokenizer=pipeline.tokenizer, max_tokens=8)
    pipeline.tokenizer.add_tokens(["<cat>", "<cat>_1"])
    with pytest.raises(ConfigError, match="'<cat>' of several vectors"):
        canonical.TextInput(tokenizer=pipeline.tokenizer, max_tokens=8)


def test_a_single_file_is_refused_with_the_way_to_a_folder(tmp_path: Path) -> None:
    for name, way in (("model.safetensors", "from_single_file"), ("flux.gguf", "dequantize")):
        (tmp_path / name).write_bytes(b"x")
        with pytest.raises(ConfigError, match=f"is a single file.*{way}"):
            checkpoints.pipeline_class(tmp_path / name)


def test_weights_of_a_variant_alone_are_read(tmp_path: Path) -> None:
    """What a cache holds after variant="fp16"."""
    pipeline = tiny.stable_diffusion().to(torch.float16)
    pipeline.save_pretrained(tmp_path, safe_serialization=True, variant="fp16")
    assert not (tmp_path / UNET).exists()
    found = families.load(tmp_path, None).networks["denoiser"].module.state_dict()
    for name, value in pipeline.unet.state_dict().items():
        assert torch.equal(found[f"unet.{name}"].float(), value.float()), name


def pickled(folder: Path) -> None:
    (folder / UNET).unlink()
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps(Bomb(folder.parent / "trace")))


def shard_outside(folder: Path) -> None:
    shutil.move(folder / UNET, folder.parent / "outside.safetensors")
    index = {"metadata": {}, "weight_map": {"conv_in.weight": "../../outside.safetensors"}}
    (folder / f"{UNET}.index.json").write_text(json.dumps(index))


def shard_missing(folder: Path) -> None:
    (folder / f"{UNET}.index.json").write_text(json.dumps({"weight_map": {"conv_in.weight": "model-00001-of-00002.safetensors"}}))


def link_out(folder: Path) -> None:
    shutil.move(folder / UNET, folder.parent / "outside.safetensors")
    (folder / UNET).symlink_to(folder.parent / "outside.safetensors")


def folder_link_out(folder: Path) -> None:
    shutil.move(folder / "unet", folder.parent / "outside")
    (folder / "unet").symlink_to(folder.parent / "outside")


def broken_link(folder: Path) -> None:
    (folder / "unet" / "more.safetensors").symlink_to("absent.safetensors")


def many_tensors(folder: Path) -> None:
    entries = {f"t{i}": {"dtype": "F32", "shape": [1], "data_offsets": [4 * i, 4 * i + 4]} for i in range(200_000)}
    header(folder / UNET, json.dumps(entries, separators=(",", ":")).encode())


def large_header(folder: Path) -> None:
    header(folder / UNET, b"{" + b" " * (20 << 20) + b"}")


def lying_length(folder: Path) -> None:
    (folder / UNET).write_bytes(struct.pack("<Q", 1 << 62) + b"{}")


def vast_tensor(folder: Path) -> None:
    header(folder / UNET, json.dumps({"t": {"dtype": "F32", "shape": [1 << 40, 4], "data_offsets": [0, 4]}}).encode())


def nested_header(folder: Path) -> None:
    header(folder / UNET, b'{"t":' + b"[" * 200_000)


def header(path: Path, content: bytes) -> None:
    path.write_bytes(struct.pack("<Q", len(content)) + content)


def fewer_tensors(folder: Path) -> None:
    tensors = load_file(folder / UNET)
    del tensors["conv_in.weight"]
    save_file(tensors, folder / UNET)


def other_width(folder: Path) -> None:
    edit(folder / "unet" / "config.json", block_out_channels=[8, 24])


def other_text_width(folder: Path) -> None:
    edit(folder / "text_encoder" / "config.json", hidden_size=32)


def endless_layers(folder: Path) -> None:
    edit(folder / "text_encoder" / "config.json", num_hidden_layers=10**9)


def no_text_weights(folder: Path) -> None:
    (folder / "text_encoder" / "model.safetensors").unlink()


def no_decoder(folder: Path) -> None:
    shutil.rmtree(folder / "vae")


def no_tokenizer(folder: Path) -> None:
    shutil.rmtree(folder / "tokenizer")


def foreign_class(folder: Path) -> None:
    edit(folder / "model_index.json", unet=["subprocess", "Popen"])


def own_code(folder: Path) -> None:
    (folder / "unet" / "mine.py").write_text("from pathlib import Path\nPath('trace').touch()\n")
    edit(folder / "model_index.json", unet=["mine", "Mine"])


def nested_pipeline(folder: Path) -> None:
    edit(folder / "model_index.json", unet=["diffusers", "DiffusionPipeline"])


def pickled_shard(folder: Path) -> None:
    (folder / "unet" / "weights.bin").write_bytes(pickle.dumps(Bomb(folder.parent / "trace")))
    (folder / f"{UNET}.index.json").write_text(json.dumps({"weight_map": {"conv_in.weight": "weights.bin"}}))


def other_class(folder: Path) -> None:
    edit(folder / "model_index.json", unet=["diffusers", "AutoencoderTiny"])


def broken_json(folder: Path) -> None:
    (folder / "model_index.json").write_text("{" * 10)


def deep_json(folder: Path) -> None:
    (folder / "unet" / "config.json").write_text('{"a":' + "[" * 200_000)


def no_index(folder: Path) -> None:
    (folder / "model_index.json").unlink()


HOSTILE: dict[Callable[[Path], None], str] = {
    pickled: r"diffusion_pytorch_model\.bin is a pickle, which can run code",
    shard_outside: r"lists the shard '\.\./\.\./outside\.safetensors', which lies outside its folder",
    shard_missing: r"lists the shard 'model-00001-of-00002\.safetensors', which is missing",
    link_out: r"safetensors is a link to outside the checkpoint's folder",
    folder_link_out: r"unet is a link to outside the checkpoint's folder",
    broken_link: r"more\.safetensors is missing or not a regular file",
    many_tensors: r"has 200000 tensors; a model has at most 30000",
    large_header: r"its header has 20971522 bytes",
    lying_length: r"truncated: its header states 4611686018427387904 bytes",
    vast_tensor: r"tensor 't' has .* elements",
    nested_header: r"its header cannot be read",
    fewer_tensors: r"unet: 1 missing keys as UNet2DConditionModel \(conv_in\.weight\)|unet cannot be opened as UNet2DConditionModel",
    other_width: r"unet cannot be opened as UNet2DConditionModel .*its config and its weights do not match",
    other_text_width: r"text_encoder.*its config and its weights do not match",
    endless_layers: r"num_hidden_layers is 1000000000, but the weights are \d+ tensors",
    no_text_weights: r"text_encoder has no weights",
    no_decoder: r"the folder 'vae' is missing",
    no_tokenizer: r"the folder 'tokenizer' is missing",
    foreign_class: r"unet is subprocess\.Popen; it must be a network, noise scheduler or tokenizer of diffusers",
    own_code: r"unet is mine\.Mine; it must be a network, noise scheduler or tokenizer of diffusers",
    nested_pipeline: r"unet is diffusers\.DiffusionPipeline; it must be a network",
    pickled_shard: r"lists the shard 'weights\.bin', which is not a safetensors file",
    other_class: r"unet cannot be opened as AutoencoderTiny|as AutoencoderTiny .*its config and its weights do not match",
    broken_json: r"not a diffusers pipeline: model_index\.json cannot be read",
    deep_json: r"config\.json cannot be read",
    no_index: r"not a diffusers pipeline: model_index\.json cannot be read",
}


@pytest.mark.parametrize("harm", HOSTILE, ids=lambda harm: harm.__name__)
def test_a_hostile_checkpoint_is_refused_by_name_and_nothing_is_written(
    harm: Callable[[Path], None], checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    harm(checkpoint)
    to = tmp_path / "bundles"
    with pytest.raises(ConfigError, match=HOSTILE[harm]) as refused:
        pipelines.export(checkpoint, to, name="x", licence="x", steps=(2,))
    assert "\n" not in str(refused.value)
    assert not to.exists()
    assert not (tmp_path / "trace").exists()


def test_300_000_tensors_are_refused_without_being_parsed(checkpoint: Path) -> None:
    entries = {f"t{i}": {"dtype": "F32", "shape": [1], "data_offsets": [4 * i, 4 * i + 4]} for i in range(300_000)}
    header(checkpoint / UNET, json.dumps(entries, separators=(",", ":")).encode())
    with pytest.raises(ConfigError, match=r"its header has|tensors; a model has at most 30000"):
        checkpoints.check(checkpoint)


def test_links_inside_the_folder_and_into_the_hubs_own_store_are_followed(saved: Path, tmp_path: Path) -> None:
    cache = tmp_path / "models--someone--something"
    snapshot = Path(shutil.copytree(saved, cache / "snapshots" / "0123"))
    (cache / "blobs").mkdir()
    shutil.move(snapshot / UNET, cache / "blobs" / "abcd")
    (snapshot / UNET).symlink_to(Path("../../../blobs/abcd"))
    checkpoints.check(snapshot)
    shutil.move(cache / "blobs" / "abcd", tmp_path / "abcd")
    (snapshot / UNET).unlink()
    (snapshot / UNET).symlink_to(tmp_path / "abcd")
    with pytest.raises(ConfigError, match="a link to outside"):
        checkpoints.check(snapshot)


def test_a_safety_checker_of_a_pipeline_is_left_out(checkpoint: Path) -> None:
    edit(checkpoint / "model_index.json", safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"], requires_safety_checker=True)
    with checkpoints.quiet():
        pipeline = checkpoints.load(checkpoint, type(tiny.stable_diffusion()))
    assert pipeline.safety_checker is None


def test_bfloat16_weights_are_read_as_they_are_in_32_bits(checkpoint: Path) -> None:
    tensors = {name: tensor.to(torch.bfloat16) for name, tensor in load_file(checkpoint / UNET).items()}
    save_file(tensors, checkpoint / UNET)
    with checkpoints.quiet():
        unet = checkpoints.load(checkpoint, type(tiny.stable_diffusion())).unet
    assert unet.dtype == torch.float32
    assert all(torch.equal(value, tensors[name].float()) for name, value in unet.state_dict().items())
