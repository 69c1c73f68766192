"""A bundle that is not what its manifest says is refused, by name, before anything runs."""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from resynth_fast import zoo
from resynth_fast.bundle import Bundle
from resynth_fast.errors import BundleError

NAME = "zoo-flux"


@pytest.fixture
def copy(tmp_path: Path):
    """A bundle of the zoo with its own copies of the shared files: (folder, manifest, write)."""
    shutil.copytree(zoo.FOLDER / NAME, tmp_path / NAME)
    shutil.copytree(zoo.FOLDER / "objects", tmp_path / "objects")
    path = tmp_path / NAME / "bundle.json"

    def write(manifest):
        path.write_text(json.dumps(manifest))
        return path.parent

    return path.parent, json.loads(path.read_text()), write


def test_an_untouched_bundle_opens_and_verifies(copy: Any) -> None:
    folder, _, _ = copy
    Bundle.open(folder).verify()


def test_a_moved_bundle_keeps_its_identity(copy: Any) -> None:
    folder, _, _ = copy
    assert Bundle.open(folder).sha256 == zoo.bundle(NAME).sha256


def object_of(folder, manifest, component):
    return folder.parent / "objects" / (manifest["components"][component]["sha256"] + ".onnx")


def test_a_tampered_file_is_refused(copy: Any) -> None:
    folder, manifest, _ = copy
    path = object_of(folder, manifest, "denoiser")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(BundleError, match="was changed or truncated"):
        Bundle.open(folder).verify()


def test_a_truncated_file_is_refused(copy: Any) -> None:
    folder, manifest, _ = copy
    path = object_of(folder, manifest, "decoder")
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(BundleError, match="was changed or truncated"):
        Bundle.open(folder).verify()


@pytest.mark.parametrize("name", ["../../secret.onnx", "/etc/secret.onnx", "a/../../b.onnx", "..\\b.onnx"])
def test_a_path_that_leaves_the_folder_is_refused(copy: Any, name: str) -> None:
    _, manifest, write = copy
    manifest["components"]["text"]["file"] = name
    with pytest.raises(BundleError, match="lies outside the bundle's folder"):
        Bundle.open(write(manifest))


def test_a_link_out_of_the_folder_is_refused(copy: Any, tmp_path: Path) -> None:
    folder, manifest, _ = copy
    secret = tmp_path / "secret.onnx"
    secret.write_bytes(b"x")
    os.symlink(secret, folder / manifest["components"]["text"]["file"])
    with pytest.raises(BundleError, match="is a link to outside"):
        Bundle.open(folder)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("schema_version", 2, "schema_version is 2"),
        ("kind", "oracle", "kind is 'oracle'"),
        ("name", "../x", "name '../x'"),
        ("components", [], "components is list"),
        ("guidance", {"mode": "magic", "scale": 1}, "guidance.mode is 'magic'"),
        ("guidance", {"mode": "batch-2", "scale": 3, "unconditional": "noise"}, "guidance.unconditional is 'noise'"),
        ("guidance", {"mode": "rescaled", "scale": 3, "rescale": "half"}, "guidance.rescale is str"),
    ],
)
def test_an_unknown_value_is_refused_by_name(copy: Any, field: Any, value: Any, message: str) -> None:
    _, manifest, write = copy
    manifest[field] = value
    with pytest.raises(BundleError, match=message):
        _ = Bundle.open(write(manifest)).guidance


def test_guidance_and_text_settings_are_read(copy: Any) -> None:
    _, manifest, write = copy
    manifest["guidance"] = {"mode": "rescaled", "scale": 3, "rescale": 0.7, "unconditional": "zeros"}
    manifest["tokenizers"][0] |= {"prefix": "Draw: ", "lowercase": True}
    bundle = Bundle.open(write(manifest))
    assert (bundle.guidance.rescale, bundle.guidance.unconditional, bundle.guidance.doubled) == (0.7, "zeros", True)
    assert (bundle.tokenizers[0].prefix, bundle.tokenizers[0].lowercase) == ("Draw: ", True)
    plain = zoo.bundle(NAME)
    assert (plain.guidance.rescale, plain.guidance.unconditional, plain.guidance.doubled) == (0.0, "empty", False)
    assert (plain.tokenizers[0].prefix, plain.tokenizers[0].lowercase) == ("", False)


@pytest.fixture
def apart(copy: Any):
    """A bundle whose denoiser has a file of weights: (its path, manifest, write). Nothing looks into the graph here."""
    folder, manifest, write = copy
    content = b"weights"
    sha256 = hashlib.sha256(content).hexdigest()
    path = folder.parent / "objects" / f"{sha256}.safetensors"
    path.write_bytes(content)
    manifest["components"]["denoiser"]["data"] = [{"file": path.name, "sha256": sha256}]
    return path, manifest, write


def test_weights_outside_a_graph_are_files_of_the_bundle(apart: Any) -> None:
    path, manifest, write = apart
    bundle = Bundle.open(write(manifest))
    bundle.verify()
    assert path in [file.path for file in bundle.files()]
    assert bundle.components["denoiser"].size_bytes == zoo.bundle(NAME).components["denoiser"].size_bytes + 7
    assert bundle.sha256 != zoo.bundle(NAME).sha256


@pytest.mark.parametrize("content", [b"weight", b"weighty", b""], ids=["cut short", "changed", "empty"])
def test_weights_that_were_tampered_with_are_refused(apart: Any, content: Any) -> None:
    path, manifest, write = apart
    path.write_bytes(content)
    for read in (Bundle.verify, lambda bundle: bundle.components["denoiser"].onnx_model()):
        with pytest.raises(BundleError, match="was changed or truncated"):
            read(Bundle.open(write(manifest)))


def test_weights_that_change_after_they_were_verified_are_refused(apart: Any) -> None:
    path, manifest, write = apart
    bundle = Bundle.open(write(manifest))
    bundle.verify()
    path.write_bytes(b"others!")
    with pytest.raises(BundleError, match="was changed or truncated"):
        bundle.verify()


def test_missing_weights_are_refused(apart: Any) -> None:
    path, manifest, write = apart
    path.unlink()
    with pytest.raises(BundleError, match=r"denoiser\.data\.0\.file .* is missing"):
        Bundle.open(write(manifest))


def test_weights_behind_a_link_that_leaves_are_refused(apart: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    path, manifest, write = apart
    secret = tmp_path_factory.mktemp("elsewhere") / "secret"
    os.replace(path, secret)
    os.symlink(secret, path)
    with pytest.raises(BundleError, match="is a link to outside"):
        Bundle.open(write(manifest))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("weights", "denoiser.data is str"),
        (["weights"], r"denoiser\.data\.0 is str"),
        ([{"file": "../weights.safetensors"}], "lies outside the bundle's folder"),
        ([{"file": "bundle.json"}], "must be named by its SHA-256"),
        ([{"file": "weights.bin"}], "holds only"),
    ],
)
def test_weights_with_a_wrong_name_are_refused(apart: Any, data: Any, message: str) -> None:
    path, manifest, write = apart
    entry = manifest["components"]["denoiser"]
    entry["data"] = [{"sha256": path.stem, **item} if isinstance(item, dict) else item for item in data] if isinstance(data, list) else data
    with pytest.raises(BundleError, match=message):
        Bundle.open(write(manifest))


def test_weights_beside_another_folder_than_their_graph_are_refused(apart: Any) -> None:
    path, manifest, write = apart
    folder = write(manifest)
    os.replace(path, folder / path.name)
    with pytest.raises(BundleError, match="lie beside its graph"):
        Bundle.open(folder)


def test_pickles_are_refused_by_suffix(copy: Any) -> None:
    _, manifest, write = copy
    manifest["components"]["text"]["file"] = "text.pkl"
    with pytest.raises(BundleError, match=r"holds only \.onnx"):
        Bundle.open(write(manifest))


def test_a_manifest_that_is_no_json_is_refused(copy: Any) -> None:
    folder, _, _ = copy
    (folder / "bundle.json").write_text("{")
    with pytest.raises(BundleError, match="is not JSON"):
        Bundle.open(folder)


def test_a_missing_bundle_is_named_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="resynth export"):
        Bundle.open(tmp_path / "nowhere")


def test_a_step_count_without_a_table_names_the_available_ones() -> None:
    with pytest.raises(BundleError, match="has tables for 1, 2, 4, 8, 20, 40"):
        zoo.bundle(NAME).step_table(3)
