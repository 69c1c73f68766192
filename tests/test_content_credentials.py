"""Content credentials: reported with who signed them, never fetched, never a crash."""

from __future__ import annotations

import datetime
import io
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL.PngImagePlugin import PngInfo
from recorded_metadata import noise
from sample_records import answered, pictures

from resynth_fast import images
from resynth_fast.images import metadata
from resynth_fast.images.metadata import generation
from resynth_fast.report import page as report
from resynth_fast.types import Picture

c2pa = pytest.importorskip("c2pa")
x509 = pytest.importorskip("cryptography.x509")


@pytest.fixture(scope="module")
def signer() -> Any:
    """A signer with a self-signed, untrusted certificate."""
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
def test_a_manifest_is_reported_with_its_hash_and_its_certificate_apart(tmp_path: Path, signer: Any, kind: str) -> None:
    found = credentials(tmp_path, signed(signer, kind))
    assert (found.status, found.hash) == ("present", "matches")
    assert (found.issuer, found.common_name, found.generator) == ("Example <b>Pictures", "Signer", "example")
    assert found.codes == ("signingCredential.untrusted",)


def test_bytes_added_after_signing_are_reported(tmp_path: Path, signer: Any) -> None:
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


@pytest.mark.parametrize("on", [{}, {"remote_manifest_fetch": True}], ids=["as shipped", "by the list of hosts alone"])
def test_a_remote_manifest_is_not_fetched(tmp_path: Path, signer: Any, monkeypatch: pytest.MonkeyPatch, on: dict[str, bool]) -> None:
    """Unknown settings are ignored, so each that forbids the network has to show its effect."""
    asked = []
    monkeypatch.setitem(metadata.OFFLINE, "verify", metadata.OFFLINE["verify"] | on)

    class Notes(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

    server = HTTPServer(("127.0.0.1", 0), Notes)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        content = signed(signer, remote=f"http://127.0.0.1:{server.server_port}/manifest")
        assert b"/manifest" in content
        with_marker = content[:8] + content[8:].replace(b"IEND\xaeB`\x82", b"IEND\xaeB`\x82jumb")  # without the marker, c2pa is not called
        assert credentials(tmp_path, with_marker).status in ("absent", "unreadable")
    finally:
        server.shutdown()
        server.server_close()
    assert asked == []


def test_the_page_shows_hints_and_credentials_as_text(tmp_path: Path, signer: Any) -> None:
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
    assert "as signed" in page
    assert "signingCredential.untrusted" in page
    assert "ampered" in page
    assert "Invalid" not in page
