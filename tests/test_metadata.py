"""What a file says of its own making: understood where it is well formed, never believed, never a crash."""

from __future__ import annotations

import datetime
import io
import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from resynth_fast import images
from resynth_fast.captioners import choice
from resynth_fast.errors import ConfigError
from resynth_fast.images import metadata
from resynth_fast.images.metadata import Generation, generation
from resynth_fast.report import page as report
from resynth_fast.types import Picture

A1111 = """a red fox, (snow:1.2) <lora:fox_v2:0.8>
in a forest, Steps: many
Negative prompt: blurry, text
watermark
Steps: 28, Sampler: DPM++ 2M Karras, CFG scale: 6.5, Seed: 18446744073709551615, Size: 512x768, Model hash: 6ce0161689, Model: "dream, shaper: 8", Version: v1.9.4"""

SD = {
    "3": {
        "class_type": "KSampler",
        "inputs": {
            "seed": 7,
            "steps": 20,
            "cfg": 8.0,
            "model": ["4", 0],
            "positive": ["6", 0],
            "negative": ["7", 0],
            "latent_image": ["5", 0],
        },
    },
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "v1-5-pruned.safetensors"}},
    "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 512, "height": 512}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a glass bottle", "clip": ["4", 1]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "watermark", "clip": ["4", 1]}},
}
SECOND_PASS = {
    "1": {
        "class_type": "KSampler",
        "inputs": {
            "seed": 99,
            "steps": 5,
            "cfg": 2.0,
            "model": ["4", 0],
            "positive": ["6", 0],
            "negative": ["7", 0],
            "latent_image": ["2", 0],
        },
    },
    "2": {"class_type": "LatentUpscale", "inputs": {"samples": ["3", 0]}},
}
FLUX = {
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": ["40", 0], "clip": ["11", 0]}},
    "40": {"class_type": "PrimitiveStringMultiline", "inputs": {"value": "cute anime girl"}},
    "10": {"class_type": "VAELoader", "inputs": {"vae_name": "ae.safetensors"}},
    "11": {"class_type": "DualCLIPLoader", "inputs": {"clip_name1": "t5xxl_fp16.safetensors", "clip_name2": "clip_l.safetensors"}},
    "12": {"class_type": "UNETLoader", "inputs": {"unet_name": "flux1-dev.safetensors"}},
    "13": {
        "class_type": "SamplerCustomAdvanced",
        "inputs": {"noise": ["25", 0], "guider": ["22", 0], "sampler": ["16", 0], "sigmas": ["17", 0], "latent_image": ["27", 0]},
    },
    "16": {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "euler"}},
    "17": {"class_type": "BasicScheduler", "inputs": {"scheduler": "simple", "steps": 20, "denoise": 1.0, "model": ["12", 0]}},
    "22": {"class_type": "BasicGuider", "inputs": {"model": ["12", 0], "conditioning": ["26", 0]}},
    "25": {"class_type": "RandomNoise", "inputs": {"noise_seed": 219670278747233}},
    "26": {"class_type": "FluxGuidance", "inputs": {"guidance": 3.5, "conditioning": ["6", 0]}},
    "27": {"class_type": "EmptySD3LatentImage", "inputs": {"width": 1024, "height": 1024}},
}
Z_IMAGE = {
    "3": {
        "class_type": "KSampler",
        "inputs": {
            "seed": 3,
            "steps": 9,
            "cfg": 1,
            "model": ["11", 0],
            "positive": ["27", 0],
            "negative": ["33", 0],
            "latent_image": ["13", 0],
        },
    },
    "11": {"class_type": "ModelSamplingAuraFlow", "inputs": {"shift": 3, "model": ["28", 0]}},
    "13": {"class_type": "EmptySD3LatentImage", "inputs": {}},
    "27": {"class_type": "CLIPTextEncode", "inputs": {"text": "a lighthouse", "clip": ["30", 0]}},
    "28": {"class_type": "SomeNewModelLoader", "inputs": {"file": "z_image_turbo_bf16.safetensors"}},
    "30": {"class_type": "CLIPLoader", "inputs": {"clip_name": "qwen_3_4b.safetensors"}},
    "33": {"class_type": "ConditioningZeroOut", "inputs": {"conditioning": ["27", 0]}},
}
WORKFLOW = {
    "nodes": [
        {"type": "VAELoader", "widgets_values": ["ae.safetensors"]},
        {"type": "UnetLoaderGGUF", "widgets_values": ["flux1-dev-Q4.gguf"]},
    ],
    "links": [],
}
INVOKE = {
    "app_version": "5.4.0",
    "positive_prompt": "a castle",
    "negative_prompt": "",
    "seed": 42,
    "steps": 30,
    "cfg_scale": 7.5,
    "model": {"key": "x", "name": "juggernaut"},
}
LEGACY = {
    "app_version": "2.3.5",
    "model_weights": "stable-diffusion-1.5",
    "image": {"prompt": [{"prompt": "an old map", "weight": 1.0}], "seed": 1, "steps": 50, "cfg_scale": 7},
}


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
def test_no_json_whatever_raises(key: str, value: object) -> None:
    assert generation({key: json.dumps(value)}).status in ("parsed", "unparsed", "absent")


@given(st.text(max_size=200), st.text(max_size=200))
def test_no_parameters_whatever_raise(before: str, after: str) -> None:
    assert generation({"parameters": f"{before}\nSteps: {after}"}).status in ("parsed", "unparsed")


# --- in files -----------------------------------------------------------------------------------------------------


def noise(side: int = 64) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8))


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


def picture(tmp_path: Path, **texts: str) -> Picture:
    info = PngInfo()
    for key, text in texts.items():
        info.add_text(key, text)
    noise().save(tmp_path / "a.png", pnginfo=info)
    return images.read(tmp_path / "a.png")


class Describes:
    name, sha256 = "describes", "0f" * 32

    def __init__(self) -> None:
        self.asked = 0

    def caption(self, pictures: Any) -> list[str]:
        self.asked += len(pictures)
        return ["a thing"] * len(pictures)


def test_a_recorded_prompt_is_the_caption_where_there_is_one(tmp_path: Path) -> None:
    with_prompt, without = picture(tmp_path, parameters=A1111), picture(tmp_path, parameters="no such thing")
    captioner = Describes()
    said = choice.captions("metadata", [without, with_prompt, without], captioner)
    assert [c.text for c in said] == ["a thing", "a red fox, (snow:1.2) in a forest, Steps: many", "a thing"]
    assert [c.by for c in said] == ["describes", "metadata", "describes"]
    assert captioner.asked == 2
    assert "no prompt is recorded" in said[0].warnings[0]
    assert said[1].warnings == ()
    assert [c.text for c in choice.captions("tagger", [with_prompt], captioner)] == ["a thing"]
    assert [(c.text, c.by) for c in choice.captions("text: a cup ", [without], captioner)] == [("a cup", "user")]


def test_a_recorded_prompt_is_cut_and_cleaned(tmp_path: Path) -> None:
    long = picture(tmp_path, parameters="a\u202e<script> " + "x" * 400_000 + "\nSteps: 2, Seed: 1, CFG scale: 1")
    [said] = choice.captions("metadata", [long], Describes())
    assert said.text.startswith("a<script> xxx")
    assert len(said.text) == choice.MAX_CHARS


@pytest.mark.parametrize("misspelt", ["metdata", "text:", "text:  ", ""])
def test_a_misspelt_choice_of_captions_is_refused(misspelt: str) -> None:
    with pytest.raises(ConfigError, match=r"tagger, metadata or text:WORDS"):
        choice.captions(misspelt, [], Describes())


# --- content credentials ------------------------------------------------------------------------------------------

c2pa = pytest.importorskip("c2pa")
x509 = pytest.importorskip("cryptography.x509")


@pytest.fixture(scope="module")
def signer() -> Any:
    """A signer with a certificate of our own, which nobody trusts."""
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    def name(common: str) -> Any:
        parts = [
            (NameOID.COMMON_NAME, common),
            (NameOID.ORGANIZATION_NAME, "Authority" if common == "Root" else "Example <b>Pictures\u202e"),
        ]
        return x509.Name([x509.NameAttribute(*part) for part in parts])

    def certificate(common: str, key: Any, root: Any, ca: bool) -> Any:
        start = datetime.datetime(2026, 1, 1)
        usage = dict.fromkeys(
            ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only", "decipher_only"), False
        )
        made = x509.CertificateBuilder(
            name("Root"), name(common), key.public_key(), x509.random_serial_number(), start, start + datetime.timedelta(36500)
        )
        made = made.add_extension(x509.BasicConstraints(ca, None), True)
        made = made.add_extension(x509.KeyUsage(digital_signature=not ca, key_cert_sign=ca, crl_sign=ca, **usage), True)
        made = made.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), False) if not ca else made
        made = made.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root.public_key()), False)
        return made.sign(root, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    root, own = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    chain = certificate("Signer", own, root, False) + certificate("Root", root, root, True)
    key = own.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return c2pa.Signer.from_info(c2pa.C2paSignerInfo(alg=b"es256", sign_cert=chain, private_key=key, ta_url=None))


def signed(signer: Any, kind: str = "PNG", remote: str | None = None) -> bytes:
    action = {"action": "c2pa.created", "digitalSourceType": "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"}
    builder = c2pa.Builder(
        {
            "claim_generator_info": [{"name": "example", "version": "1"}],
            "assertions": [{"label": "c2pa.actions", "data": {"actions": [action]}}],
        }
    )
    if remote:
        builder.set_no_embed()
        builder.set_remote_url(remote)
    plain, done = io.BytesIO(), io.BytesIO()
    noise().save(plain, kind)
    plain.seek(0)
    builder.sign(signer, f"image/{kind.lower()}", plain, done)
    return done.getvalue()


def credentials(tmp_path: Path, content: bytes) -> metadata.Credentials:
    (tmp_path / "signed").write_bytes(content)
    return metadata.credentials(images.read(tmp_path / "signed"))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_manifest_is_told_with_the_hash_apart_from_the_certificate(tmp_path: Path, signer: Any, kind: str) -> None:
    found = credentials(tmp_path, signed(signer, kind))
    assert (found.status, found.hash) == ("present", "matches")
    assert (found.issuer, found.common_name, found.generator) == ("Example <b>Pictures", "Signer", "example")
    assert found.codes == ("signingCredential.untrusted",)


def test_bytes_that_were_not_signed_differ(tmp_path: Path, signer: Any) -> None:
    content = signed(signer)
    at = content.rindex(b"IEND") - 4
    text = io.BytesIO()
    info = PngInfo()
    info.add_text("k", "v")
    noise().save(text, "PNG", pnginfo=info)
    chunk = text.getvalue()[33 : 33 + 15]
    assert chunk[4:8] == b"tEXt"
    found = credentials(tmp_path, content[:at] + chunk + content[at:])
    assert (found.status, found.hash) == ("present", "differs")
    assert "assertion.dataHash.mismatch" in found.codes


def test_damage_in_a_manifest_never_raises(tmp_path: Path, signer: Any) -> None:
    content = signed(signer, "JPEG")
    start, stop = content.index(b"jumb"), content.rindex(b"jumb") + 2000
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(60):
        broken = bytearray(content)
        for at in rng.integers(start, stop, 8):
            broken[at] = rng.integers(256)
        picture = Picture(
            pixels=np.zeros((64, 64, 3), np.uint8),
            sha256="",
            format="JPEG",
            width=64,
            height=64,
            exif_orientation=1,
            warnings=(),
            info={},
            data=bytes(broken),
        )
        seen.add(metadata.credentials(picture).status)
    assert seen <= {"present", "unreadable", "absent"}
    assert "unreadable" in seen or "present" in seen


def test_a_manifest_elsewhere_is_not_fetched(tmp_path: Path, signer: Any) -> None:
    asked = []

    class Notes(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

    server = HTTPServer(("127.0.0.1", 0), Notes)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        content = signed(signer, remote=f"http://127.0.0.1:{server.server_port}/manifest")
        assert b"/manifest" in content
        with_marker = content[:8] + content[8:].replace(b"IEND\xaeB`\x82", b"IEND\xaeB`\x82jumb")  # else c2pa is not even asked
        assert credentials(tmp_path, with_marker).status in ("absent", "unreadable")
    finally:
        server.shutdown()
        server.server_close()
    assert asked == []


def test_the_page_shows_hints_and_credentials_as_text(tmp_path: Path, signer: Any) -> None:
    from .test_report import answered, pictures

    (tmp_path / "signed").write_bytes(signed(signer))
    said = metadata.of(images.read(tmp_path / "signed"))
    said["generation"] = metadata.asdict(
        generation({"invokeai_metadata": '{"positive_prompt": "<script>alert(1)</script>", "seed": 12345}'})
    )
    record = answered() | {"metadata": said}
    page = report.render([record], [pictures(record)])
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "12345" in page
    assert "Example &lt;b&gt;Pictures" in page
    assert "those that were signed" in page
    assert "signingCredential.untrusted" in page
    assert "ampered" in page
    assert "Invalid" not in page
