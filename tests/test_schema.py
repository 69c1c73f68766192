"""The published schemas are valid, accept every document that the package writes, and refuse all others."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from resynth_fast import zoo
from resynth_fast.bundle import MANIFEST
from resynth_fast.errors import InputError
from resynth_fast.report import record
from resynth_fast.types import CandidateEvidence, Picture, Resynthesis, Status, Verdict

SHA256 = "0f" * 32


def schema(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((resources.files("resynth_fast") / "schemas" / f"{name}.schema.json").read_bytes())
    return loaded


def faults(name: str, document: object) -> list[str]:
    return [error.message for error in Draft202012Validator(schema(name)).iter_errors(document)]


def verdict(status: Status) -> Verdict:
    """As the attributor gives it."""
    attributed = status == "attributed"
    pixels = np.zeros((8, 8, 3), np.uint8)
    candidates = tuple(
        CandidateEvidence(name=name, family="f", bundle=SHA256, score=-1.0, probability=p, resyntheses=(Resynthesis(0, pixels),))
        for name, p in (("a", 0.75), ("b", 0.25))
    )
    return Verdict(
        status=status,
        reason="" if attributed else "No candidate is likelier than all others together",
        label="a" if attributed else None,
        family="f" if attributed else None,
        probability=0.75,
        margin=0.5,
        consistency=0.4,
        credible_set=("a", "b"),
        candidates=candidates,
        caption="a drawn face",
        captioner="tagger",
        perturbations=5,
        flips=1,
        probe=Picture(
            pixels=pixels, format="PNG", sha256=SHA256, width=8, height=8, exif_orientation=1, info={"Software": "x"}, warnings=()
        ),
        timing_ms={"read": 1.0, "caption": 2.0, "generate": 3.0, "features": 4.0, "score": 0.0, "total": 10.0},
        provenance={
            "resynth_fast": "0.1.0",
            "backend": "onnxruntime 1.30.0",
            "isa": "avx2",
            "captioner_sha256": SHA256,
            "extractor_sha256": SHA256,
            "noise_version": 1,
            "recipe": "one-shot",
            "gallery_per_candidate": 0,
            "fit_sha256": None,
            "calibration": "200 zoo probes",
        },
    )


def answered(status: Status = "attributed") -> dict[str, Any]:
    return record.of("a.png", verdict(status), "tagger", "texture", "texture", 8)


def failed() -> dict[str, Any]:
    return record.failed("b.png", InputError("b.png: cannot be decoded; export it again"))


def component(inputs: dict[str, Any], outputs: dict[str, Any]) -> dict[str, Any]:
    def tensors(shapes: dict[str, Any]) -> dict[str, Any]:
        return {name: {"dtype": "float32", "shape": shape} for name, shape in shapes.items()}

    return {"file": "part.onnx", "sha256": SHA256, "precision": "float32", "inputs": tensors(inputs), "outputs": tensors(outputs)}


BATCH = "batch"
GENERATOR: dict[str, Any] = {
    "schema_version": 1,
    "kind": "generator",
    "name": "tiny",
    "family": "stable-diffusion",
    "licence": "Apache-2.0",
    "components": {
        "text": component({"tokens_0": [BATCH, 8]}, {"cond_0": [BATCH, 8, 4]}),
        "denoiser": component(
            {"latents": [BATCH, 4, 2, 2], "timestep": [BATCH], "cond_0": [BATCH, 8, 4]}, {"model_output": [BATCH, 4, 2, 2]}
        ),
        "decoder": component({"latents": [BATCH, 4, 2, 2]}, {"image": [BATCH, 3, 8, 8]}),
    },
    "tokenizers": [{"file": "tokenizer.json", "sha256": SHA256, "max_tokens": 8, "pad_id": 0}],
    "latents": {"channels": 4, "height": 2, "width": 2},
    "resolution_px": {"height": 8, "width": 8},
    "guidance": {"mode": "batch-2", "scale": 3.0},
    "lineage": {"autoencoder": SHA256, "denoiser": SHA256, "text_encoder": SHA256},
    "step_tables": {
        "8x8": {
            "1": {
                "noise_scheduler": "DDIMScheduler",
                "init_noise_sigma": 1.0,
                "rows": [{"timestep": 1.0, "input_scale": 1.0, "samples": [1.0], "outputs": [-0.1], "noise": 0}],
            }
        }
    },
}
EXTRACTOR: dict[str, Any] = {
    "schema_version": 1,
    "kind": "extractor",
    "name": "texture",
    "family": "texture",
    "licence": "Apache-2.0",
    "components": {},
    "pixels": {"working_size": 64},
    "calibration": {"points": [{"references": 1, "steps": 8, "temperature": 0.5, "unknown_below": 0.1}], "source": "200 zoo probes"},
    "constants": {"file": "constants.safetensors", "sha256": SHA256},
}
CAPTIONER: dict[str, Any] = {
    "schema_version": 1,
    "kind": "captioner",
    "name": "tagger",
    "family": "tagger",
    "licence": "Apache-2.0",
    "components": {"tagger": component({"pixels": [BATCH, 3, 8, 8]}, {"logits_hair": [BATCH, 2]})},
    "attributes": {"hair": ["long", "short"]},
    "sentence": "a face with {hair} hair",
    "phrases": {"hair": {"*": "{hair}"}},
}
FREE = {
    ("lineage",),
    ("attributes",),
    ("phrases",),
    ("step_tables", "8x8"),
    ("components", "tagger", "outputs"),
    ("components", "text", "outputs"),
}
"""Objects whose keys are names: any of them may be missing."""


def paths(value: object, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every field of the objects in `value`."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in entries:
        if isinstance(value, dict):
            yield (*at, key)
        yield from paths(entry, (*at, key))


def parent(document: Any, path: tuple[Any, ...]) -> Any:
    for key in path[:-1]:
        document = document[key]
    return document


def without(document: Any, path: tuple[Any, ...]) -> Any:
    document = copy.deepcopy(document)
    del parent(document, path)[path[-1]]
    return document


def replaced(document: Any, path: tuple[Any, ...], value: object) -> Any:
    document = copy.deepcopy(document)
    parent(document, path)[path[-1]] = value
    return document


@pytest.mark.parametrize("name", ["record", "bundle"])
def test_a_schema_is_itself_valid(name: str) -> None:
    assert schema(name)["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    Draft202012Validator.check_schema(schema(name))


@pytest.mark.parametrize("status", ["attributed", "inconclusive", "unknown"])
def test_records_of_every_status_are_valid(status: Status) -> None:
    assert faults("record", json.loads(json.dumps(record.document([answered(status), failed()])))) == []


def test_an_empty_list_of_records_is_valid() -> None:
    assert faults("record", record.document([])) == []


@pytest.mark.parametrize("made", [answered, failed])
def test_a_record_that_lacks_any_field_is_invalid(made: Any) -> None:
    document = record.document([made()])
    free = ("records", 0, "metadata", "parameters")
    for path in paths(document):
        if path[:-1] != free:
            assert faults("record", without(document, path)), path


@pytest.mark.parametrize("level", [(), ("input",), ("verdict",), ("candidates", 0), ("evidence",), ("robustness",)])
def test_a_record_with_an_unknown_field_is_invalid(level: tuple[Any, ...]) -> None:
    assert faults("record", replaced(record.document([answered()]), ("records", 0, *level, "more"), 1))


@pytest.mark.parametrize("level", ["timing_ms", "metadata", "provenance"])
def test_timing_metadata_and_provenance_may_grow(level: str) -> None:
    assert faults("record", replaced(record.document([answered()]), ("records", 0, level, "more"), 1)) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("schema_version",), 1),
        (("verdict", "status"), "guilty"),
        (("verdict", "status"), None),
        (("verdict", "status"), "unknown"),  # but with a label
        (("verdict", "label"), None),
        (("verdict", "probability"), 1.5),
        (("verdict", "probability"), None),
        (("verdict", "credible_set"), []),
        (("verdict", "summary"), ""),
        (("verdict", "reason"), "a candidate is named in spite of it"),
        (("candidates",), []),
        (("candidates", 0, "bundle"), "not a hash"),
        (("candidates", 0, "score"), "-1"),
        (("input", "size"), [8]),
        (("timing_ms", "total"), -1),
        (("error",), {"kind": "InputError", "message": "but with a verdict"}),
    ],
)
def test_a_record_that_contradicts_itself_is_invalid(path: tuple[Any, ...], value: object) -> None:
    assert faults("record", replaced(record.document([answered()]), ("records", 0, *path), value))


@pytest.mark.parametrize("manifest", [GENERATOR, EXTRACTOR, CAPTIONER], ids=lambda manifest: manifest["kind"])
def test_a_manifest_is_valid_and_lacks_nothing(manifest: dict[str, Any]) -> None:
    assert faults("bundle", manifest) == []
    for path in paths(manifest):
        if path[:-1] not in FREE and path[-1] != "cond_0" and path[:-1] != ("phrases", "hair"):
            assert faults("bundle", without(manifest, path)), path


def test_the_bundles_at_hand_are_valid() -> None:
    for path in Path(zoo.FOLDER).glob(f"[!.]*/{MANIFEST}"):
        assert faults("bundle", json.loads(path.read_bytes())) == [], path


@pytest.mark.parametrize(
    "name",
    ["/etc/x.onnx", "../x.onnx", "a/../x.onnx", "a/..", "..\\x.onnx", "x\0.onnx", "x.pkl", "x.bin", "x.onnx.py", ".onnx/..", ""],
)
def test_a_file_that_leaves_the_bundle_or_is_of_another_kind_is_invalid(name: str) -> None:
    assert faults("bundle", replaced(EXTRACTOR, ("constants", "file"), name))


@pytest.mark.parametrize("name", ["x.onnx", "a/x.onnx", "a..b/..x.safetensors", "tokenizer.json"])
def test_a_file_in_the_bundle_is_valid(name: str) -> None:
    assert faults("bundle", replaced(EXTRACTOR, ("constants", "file"), name)) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("schema_version",), 2),
        (("kind",), "classifier"),
        (("name",), "../tiny"),
        (("name",), "n" * 101),
        (("guidance", "mode"), "renormalised"),
        (("latents", "channels"), 0),
        (("lineage", "denoiser"), "abc"),
        (("tokenizers",), []),
        (("step_tables",), {}),
        (("step_tables", "8x8", "zero"), {}),
        (("components", "text", "sha256"), SHA256.upper()),
    ],
)
def test_a_wrong_value_in_a_manifest_is_invalid(path: tuple[Any, ...], value: object) -> None:
    assert faults("bundle", replaced(GENERATOR, path, value))
