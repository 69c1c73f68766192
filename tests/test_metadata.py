"""Generation parameters in a file: understood where they are well formed, never believed, never a crash."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from recorded_metadata import A1111, FLUX, INVOKE, LEGACY, SD, SECOND_PASS, WORKFLOW, Z_IMAGE, noise

from resynth_fast import images
from resynth_fast.images import metadata
from resynth_fast.images.metadata import Generation, generation


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        (
            {"parameters": A1111, "Software": "an editor"},
            Generation(
                status="parsed",
                generator="AUTOMATIC1111",
                software="v1.9.4",
                model="dream, shaper: 8",
                prompt="a red fox, (snow:1.2) <lora:fox_v2:0.8>\nin a forest, Steps: many",
                negative_prompt="blurry, text\nwatermark",
                seed=18446744073709551615,
                steps=28,
                guidance=6.5,
            ),
        ),
        (
            {"parameters": "Steps: 20, Sampler: Euler a, Seed: None, CFG scale: nan, Model: x"},
            Generation(status="parsed", generator="AUTOMATIC1111", model="x", steps=20),
        ),
        (
            {"parameters": json.dumps({"prompt": "a cat", "seed": "5", "steps": 30, "guidance_scale": 4.0, "base_model": "xl"})},
            Generation(status="parsed", generator="AUTOMATIC1111", model="xl", prompt="a cat", seed=5, steps=30, guidance=4.0),
        ),
        (
            {"prompt": json.dumps(SD), "workflow": "{}"},
            Generation(
                status="parsed",
                generator="ComfyUI",
                model="v1-5-pruned.safetensors",
                prompt="a glass bottle",
                negative_prompt="watermark",
                seed=7,
                steps=20,
                guidance=8.0,
            ),
        ),
        (
            {"prompt": json.dumps(SECOND_PASS | SD)},
            Generation(
                status="parsed",
                generator="ComfyUI",
                model="v1-5-pruned.safetensors",
                prompt="a glass bottle",
                negative_prompt="watermark",
                seed=7,
                steps=20,
                guidance=8.0,
            ),
        ),
        (
            {"prompt": json.dumps(FLUX)},
            Generation(
                status="parsed",
                generator="ComfyUI",
                model="flux1-dev.safetensors",
                prompt="cute anime girl",
                seed=219670278747233,
                steps=20,
                guidance=3.5,
            ),
        ),
        (
            {"prompt": json.dumps(Z_IMAGE)},
            Generation(
                status="parsed",
                generator="ComfyUI",
                model="z_image_turbo_bf16.safetensors",
                prompt="a lighthouse",
                seed=3,
                steps=9,
                guidance=1,
            ),
        ),
        ({"workflow": json.dumps(WORKFLOW)}, Generation(status="parsed", generator="ComfyUI", model="flux1-dev-Q4.gguf")),
        (
            {"invokeai_metadata": json.dumps(INVOKE)},
            Generation(
                status="parsed",
                generator="InvokeAI",
                software="5.4.0",
                model="juggernaut",
                prompt="a castle",
                seed=42,
                steps=30,
                guidance=7.5,
            ),
        ),
        (
            {"sd-metadata": json.dumps(LEGACY)},
            Generation(
                status="parsed",
                generator="InvokeAI",
                software="2.3.5",
                model="stable-diffusion-1.5",
                prompt="an old map",
                seed=1,
                steps=50,
                guidance=7,
            ),
        ),
        ({"Software": "GIMP"}, Generation(status="absent", software="GIMP")),
        ({"UserComment": "taken in Rome"}, Generation(status="absent")),
        ({"parameters": "taken in Rome"}, Generation(status="unparsed")),
        ({}, Generation(status="absent")),
    ],
)
def test_parameters_are_read_in_every_known_form(info: dict[str, str], expected: Generation) -> None:
    assert generation(info) == expected


HOSTILE = [
    "x" * 1_000_000,
    "Steps: 1," + "a" * 1_000_000,
    "\nSteps: " + 'k: "' * 250_000,
    "\n" * 500_000 + "Negative prompt:" * 30_000,
    "[" * 500_000,
    '{"a":' * 100_000,
    '{"seed": ' + "9" * 5000 + "}",
    '{"seed": 1e999, "steps": NaN, "cfg_scale": Infinity}',
    '{"seed": -1, "steps": true, "cfg_scale": [], "prompt": {"a": 1}}',
    '{"positive_prompt": "\\u0000\\u202e\\ud800<script>alert(1)</script>"}',
    '{"image": 1}',
    '{"image": {"prompt": [1]}}',
    '{"nodes": 1}',
    '{"nodes": [null, {"type": null, "widgets_values": {"a": 1}}]}',
    '{"1": {"class_type": "KSampler", "inputs": {"positive": ["1", 0], "model": ["1", 0], "negative": ["9", 0], "seed": ["1", 0]}}}',
    json.dumps({str(i): {"class_type": "KSampler", "inputs": {"positive": [str(i + 1), 0], "negative": [i - 1, 0]}} for i in range(4999)}),
    json.dumps(
        {str(i): {"class_type": "Sampler", "inputs": {f"k{j}": [str((i * 31 + j) % 900), 0] for j in range(20)}} for i in range(900)}
    ),
    "\0",
    "null",
    "",
]
KEYS = ["parameters", "prompt", "workflow", "invokeai_metadata", "sd-metadata", "UserComment"]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("key", KEYS)
def test_hostile_text_is_unparsed_or_harmless_and_costs_no_time(key: str, text: str) -> None:
    import time

    start = time.process_time()
    found = generation({key: text})
    assert time.process_time() - start < 2
    assert json.loads(json.dumps(metadata.asdict(found))) == metadata.asdict(found)  # finite, and no lone surrogate
    for value in (found.prompt, found.model, found.negative_prompt, found.software):
        assert value is None or (images.cleaned(value) == value and len(value) <= metadata.MAX_PROMPT_CHARS)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["inputs", "class_type", "positive", "seed", "nodes", "1", "image", "model", "prompt"]), inner, max_size=5
        )
    ),
    max_leaves=20,
)


@given(st.sampled_from(KEYS), JSON)
def test_no_json_raises(key: str, value: object) -> None:
    assert generation({key: json.dumps(value)}).status in ("parsed", "unparsed", "absent")


@given(st.text(max_size=200), st.text(max_size=200))
def test_no_parameters_raise(before: str, after: str) -> None:
    assert generation({"parameters": f"{before}\nSteps: {after}"}).status in ("parsed", "unparsed")


@pytest.mark.parametrize("suffix", ["jpg", "webp"])
@pytest.mark.parametrize(
    ("prefix", "encoding"),
    [(b"UNICODE\0", "utf-16-be"), (b"UNICODE\0", "utf-16-le"), (b"ASCII\0\0\0", "ascii"), (bytes(8), "utf-8")],
)
def test_parameters_in_an_exif_user_comment_are_found(tmp_path: Path, suffix: str, prefix: bytes, encoding: str) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = prefix + A1111.encode(encoding)
    noise().save(tmp_path / f"a.{suffix}", exif=exif)
    found = generation(images.read(tmp_path / f"a.{suffix}").info)
    assert (found.seed, found.model, found.steps) == (18446744073709551615, "dream, shaper: 8", 28)
