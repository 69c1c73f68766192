"""A captioner exported from transformers writes the tokens of transformers; a checkpoint that is no captioner is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from PIL import Image

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from typer.testing import CliRunner  # noqa: E402

from resynth_fast import captioners, zoo  # noqa: E402
from resynth_fast.bundle import MANIFEST, Bundle  # noqa: E402
from resynth_fast.captioners.vision_language import VisionLanguage  # noqa: E402
from resynth_fast.cli.__main__ import app  # noqa: E402
from resynth_fast.engines.pool import EnginePool  # noqa: E402
from resynth_fast.errors import BundleError, ConfigError, DeviceError  # noqa: E402
from resynth_fast.export import captioners as exporter  # noqa: E402
from resynth_fast.export import checkpoints, tiny  # noqa: E402
from resynth_fast.export.weights import round_weights  # noqa: E402

MOST = 12
START, END = 2, 3


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("blip") / "checkpoint"
    with checkpoints.quiet():
        tiny.save_blip(folder)
    return folder


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> Any:
    """The model as a user of transformers opens it, its weights rounded as the bundle's are."""
    with checkpoints.quiet():
        opened = transformers.BlipForConditionalGeneration.from_pretrained(checkpoint, local_files_only=True).eval()
    round_weights(opened)
    return opened


@pytest.fixture(scope="module")
def bundle(checkpoint: Path) -> Bundle:
    """By the command line, as a user exports it."""
    to = checkpoint.parent / "bundles"
    options = ["--to", str(to), "--name", "blip", "--licence", "MIT", "--max-tokens", str(MOST), "--format", "json"]
    result = CliRunner().invoke(app, ["export", "captioner", str(checkpoint), *options], catch_exceptions=False)
    report = json.loads(result.stdout)
    assert set(report["components"]) == {"vision", "decoder"}
    assert max(report["components"].values()) <= 1e-4
    return Bundle.open(to / "blip")


def pictures(count: int = 8) -> list[Any]:
    """Of many sizes and shapes."""
    rng = np.random.default_rng(0)
    sizes = [(32, 32), (40, 90), (300, 200), (17, 31)]
    small = [Image.fromarray(rng.integers(0, 256, (2 + i, 3, 3)).astype(np.uint8)) for i in range(count)]
    return [np.asarray(picture.resize(sizes[i % 4], Image.Resampling.BICUBIC)) for i, picture in enumerate(small)]


def theirs(model: Any, checkpoint: Path, given: Sequence[Any], prefix: Sequence[int] = (START,), most: int = MOST) -> list[list[int]]:
    """Greedy tokens by transformers, its own processor included."""
    processor = transformers.BlipImageProcessorPil.from_pretrained(checkpoint, local_files_only=True)
    found = []
    for picture in given:
        with torch.no_grad():
            [row] = model.generate(
                processor(images=[picture], return_tensors="pt")["pixel_values"],
                input_ids=torch.tensor([[*prefix, END]]),
                max_length=most,
                do_sample=False,
                num_beams=1,
            ).tolist()
        ends = [i for i, token in enumerate(row) if token == END and i >= len(prefix)]
        found.append(row[: ends[0]] if ends else row)
    return found


def changed(bundle: Bundle, folder: Path, **fields: Any) -> Bundle:
    """A bundle with another manifest."""
    shutil.copytree(bundle.folder, folder / "blip")
    shutil.copytree(bundle.folder.parent / "objects", folder / "objects")
    (folder / "blip" / MANIFEST).write_text(json.dumps({**bundle.manifest, **fields}))
    return Bundle.open(folder / "blip")


def test_captions_are_those_of_transformers_token_by_token(bundle: Bundle, model: Any, checkpoint: Path) -> None:
    given = pictures()
    captioner = captioners.find(str(bundle.folder), EnginePool(threads=1))
    assert isinstance(captioner, VisionLanguage)
    found, expected = captioner.tokens(given), theirs(model, checkpoint, given)
    assert found == expected
    assert len({tuple(row) for row in found}) > 4  # they look at the picture
    assert len({len(row) for row in found}) > 1  # and end when they are done
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint, local_files_only=True)
    assert captioner.caption(given) == [tokenizer.decode(row, skip_special_tokens=True).strip() for row in expected]


def test_another_backend_writes_the_same(bundle: Bundle) -> None:
    try:
        pool = EnginePool("openvino", threads=1)
    except DeviceError as error:
        pytest.skip(str(error))
    assert VisionLanguage(bundle, pool).tokens(pictures()) == VisionLanguage(bundle, EnginePool(threads=1)).tokens(pictures())


def test_a_caption_does_not_depend_on_its_batch(bundle: Bundle) -> None:
    captioner = VisionLanguage(bundle, EnginePool(threads=1))
    given = pictures(11)  # more than one batch
    together = captioner.tokens(given)
    assert together == [captioner.tokens([picture])[0] for picture in given]
    assert captioner.tokens(given[::-1]) == together[::-1]
    assert captioner.caption([]) == []


def test_a_manifest_holds_the_tokens_that_begin_and_end_a_caption(bundle: Bundle, model: Any, checkpoint: Path, tmp_path: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(checkpoint, local_files_only=True)
    prefix = [START, *tokenizer("a picture of", add_special_tokens=False).input_ids]
    prompted = changed(bundle, tmp_path, decoding={"prefix": prefix, "end": END, "max_tokens": MOST})
    captioner = VisionLanguage(prompted, EnginePool(threads=1))
    assert captioner.tokens(pictures(5)) == theirs(model, checkpoint, pictures(5), prefix)
    assert all(text.startswith("a picture of") for text in captioner.caption(pictures(2)))


def test_the_manifest_meets_the_schema_and_a_bundle_is_verified_again(bundle: Bundle, checkpoint: Path) -> None:
    schema = json.loads((Path(captioners.__file__).parents[1] / "schemas" / "bundle.schema.json").read_text())
    assert not list(Draft202012Validator(schema).iter_errors(dict(bundle.manifest)))
    assert list(Draft202012Validator(schema).iter_errors({**bundle.manifest, "decoding": {"prefix": []}}))
    exporter.verified(bundle, checkpoint)


def test_pictures_are_attributed_by_its_captions(bundle: Bundle, tmp_path: Path) -> None:
    Image.fromarray(pictures(1)[0]).save(tmp_path / "probe.png")
    options = ["-c", "zoo:zoo-sd", "-c", "zoo:zoo-flux", "-k", "1", "--steps", "1", "--format", "jsonl", "--captioner", str(bundle.folder)]
    result = CliRunner().invoke(app, ["attribute", str(tmp_path / "probe.png"), *options], catch_exceptions=False)
    record = json.loads(result.stdout)
    assert record["evidence"]["caption"] == VisionLanguage(bundle, EnginePool(threads=1)).caption(pictures(1))[0]
    assert record["provenance"]["captioner_sha256"] == bundle.sha256


@pytest.mark.parametrize(
    "decoding",
    [
        {},
        {"prefix": [], "end": 3, "max_tokens": MOST},
        {"prefix": [2], "end": 3, "max_tokens": 1},
        {"prefix": 2, "end": 3, "max_tokens": MOST},
        {"prefix": [2], "end": "3", "max_tokens": MOST},
        {"prefix": [2], "end": 3, "max_tokens": MOST + 1},
    ],
    ids=["empty", "no start", "no room", "no list", "no number", "other cache"],
)
def test_a_manifest_that_cannot_be_decoded_is_refused(bundle: Bundle, tmp_path: Path, decoding: dict[str, Any]) -> None:
    with pytest.raises(BundleError, match=r"decoding is|keeps other than"):
        captioners.of_bundle(changed(bundle, tmp_path, decoding=decoding), EnginePool(threads=1))


def test_logits_that_are_not_finite_are_an_error_not_a_caption(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = EnginePool(threads=1)
    decoder = pool.get(bundle.components["decoder"])

    def run(inputs: Any) -> Any:
        return {name: value * np.nan if name == "logits" else value for name, value in type(decoder).run(decoder, inputs).items()}

    monkeypatch.setattr(decoder, "run", run)
    with pytest.raises(BundleError, match="logits are not finite"):
        VisionLanguage(bundle, pool).caption(pictures(1))


def test_a_bundle_that_is_no_captioner_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'zoo-sd' is a bundle of kind 'generator'"):
        captioners.of_bundle(zoo.bundle("zoo-sd"), EnginePool(threads=1))
    for i, family in enumerate(("from-the-future", "../tagger", "http")):
        with pytest.raises(BundleError, match="captioner"):
            captioners.of_bundle(changed(bundle, tmp_path / str(i), family=family), EnginePool(threads=1))
    with pytest.raises(BundleError, match="cannot read"):
        captioners.find(str(tmp_path / "absent"), EnginePool(threads=1))


def other_model(folder: Path) -> None:
    edit(folder / "config.json", model_type="clip")


def crops(folder: Path) -> None:
    edit(folder / "preprocessor_config.json", do_center_crop=True, crop_size={"height": 32, "width": 32})


def other_filter(folder: Path) -> None:
    edit(folder / "preprocessor_config.json", resample=2)


def other_range(folder: Path) -> None:
    edit(folder / "preprocessor_config.json", rescale_factor=1 / 127.5)


def other_size(folder: Path) -> None:
    edit(folder / "preprocessor_config.json", size={"height": 48, "width": 48})


def oblong(folder: Path) -> None:
    edit(folder / "preprocessor_config.json", size={"height": 48, "width": 32})


def no_processor(folder: Path) -> None:
    (folder / "preprocessor_config.json").unlink()


def no_tokenizer(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()


def broken_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{")


def foreign_tokenizer(folder: Path) -> None:
    no_tokenizer(folder)
    (folder / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{i}" for i in range(65))]))


def endless_layers(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    edit(folder / "config.json", text_config={**config["text_config"], "num_hidden_layers": 10**9})


def few_positions(folder: Path) -> None:
    edit(folder / "generation_config.json", max_length=33)


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


WRONG = {
    other_model: "a model of type 'clip'; the exporter supports blip",
    crops: "its processor crops",
    other_filter: "another filter than bicubic",
    other_range: "it must be 1/255",
    other_size: "pictures of 48 px, but its config takes 32 px",
    oblong: "it must be square",
    no_processor: "fetch the checkpoint with its processor",
    no_tokenizer: "has no tokenizer",
    broken_tokenizer: "tokenizer cannot be read",
    foreign_tokenizer: "its tokenizer has 70 tokens, its config 60",
    endless_layers: "num_hidden_layers is 1000000000",
    few_positions: "max_tokens is 33, but .* has 32 positions",
}


@pytest.mark.parametrize("spoil", WRONG, ids=lambda spoil: spoil.__name__)
def test_a_checkpoint_that_is_no_captioner_is_refused_and_nothing_written(spoil: Any, checkpoint: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(checkpoint, tmp_path / "checkpoint"))
    spoil(folder)
    with pytest.raises(ConfigError, match=WRONG[spoil]):
        exporter.export(folder, tmp_path / "to", name="x", licence="MIT")
    assert not (tmp_path / "to").exists()


def test_an_export_whose_captions_differ_is_not_published(bundle: Bundle, checkpoint: Path, tmp_path: Path) -> None:
    """The check that guards publishing: a bundle whose captions end elsewhere differs from transformers'."""
    other = VisionLanguage(bundle, EnginePool(threads=1)).tokens(exporter.probes())[0][3]
    spoilt = changed(bundle, tmp_path, decoding={"prefix": [START], "end": other, "max_tokens": MOST})
    with pytest.raises(BundleError, match="a caption has the tokens"):
        exporter.verified(spoilt, checkpoint)
