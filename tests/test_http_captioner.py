"""Captions from a chat endpoint on the loopback: requests, answers, and secrets that are never shown."""

from __future__ import annotations

import base64
import io
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loopback import Server
from PIL import Image, PngImagePlugin
from typer.testing import CliRunner

from resynth_fast import captioners
from resynth_fast.captioners.http import MAX_CHARS, HttpCaptioner
from resynth_fast.cli.__main__ import app
from resynth_fast.engines.pool import EnginePool
from resynth_fast.errors import ConfigError, SourceError

SECRET = "sk-verysecret"


def says(text: object) -> bytes:
    return json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode()


def sent_picture(body: dict[str, Any]) -> Image.Image:
    [message] = body["messages"]
    [url] = [part["image_url"]["url"] for part in message["content"] if part["type"] == "image_url"]
    return Image.open(io.BytesIO(base64.b64decode(url.removeprefix("data:image/png;base64,"), validate=True)))


@pytest.fixture
def server(server: Server) -> Server:
    """An endpoint that answers with the brightness of a picture, unless a test sets another answer."""
    server.respond = lambda body, _: (200, {}, says(f"grey {np.asarray(sent_picture(body)).mean():.0f}"))
    return server


def captioner(server: Server, settings: str = "") -> HttpCaptioner:
    return HttpCaptioner(f"{server.url}#per_minute=1000000,{settings}", wait=lambda _: None)


def grey(level: int, height: int = 8, width: int = 8) -> Any:
    return np.full((height, width, 3), level, np.uint8)


def test_a_request_follows_the_interface(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_KEY", SECRET)
    acme = captioner(server, "model=see-1,key=ACME_KEY")
    assert acme.caption([grey(7)]) == ["grey 7"]
    [(path, headers, body)] = server.requests
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == f"Bearer {SECRET}"
    assert set(body) == {"model", "messages", "temperature"}
    np.testing.assert_array_equal(np.asarray(sent_picture(body)), grey(7))
    assert acme.name == "see-1 at 127.0.0.1"
    captioner(server, "temperature=no").caption([grey(7)])
    assert set(server.requests[1][2]) == {"messages"}
    assert "Authorization" not in server.requests[1][1]


def test_captions_are_in_the_order_of_the_pictures(server: Server) -> None:
    assert captioner(server, "parallel=4").caption([grey(level) for level in range(0, 240, 20)]) == [f"grey {n}" for n in range(0, 240, 20)]
    assert captioner(server).caption([]) == []


def test_a_large_picture_is_sent_smaller(server: Server) -> None:
    captioner(server).caption([grey(9, 1500, 3000)])
    assert sent_picture(server.requests[0][2]).size == (1024, 512)


@pytest.mark.parametrize(
    ("answer", "caption"),
    [
        ("  a cat\n on a mat \x1b[31m", "a cat on a mat [31m"),
        ('"a cat"', "a cat"),
        ("“ein Kätzchen”", "ein Kätzchen"),
        ("x" * 10_000, "x" * MAX_CHARS),
    ],
)
def test_an_answer_becomes_one_clean_line(server: Server, answer: str, caption: str) -> None:
    server.respond = lambda *_: (200, {}, says(answer))
    assert captioner(server).caption([grey(0)]) == [caption]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"<html>", "not answer with a chat completion"),
        (b"{}", "not answer with a chat completion"),
        (b'{"choices": []}', "not answer with a chat completion"),
        (b"[" * 99_999, "not answer with a chat completion"),
        (says(None), "gave no caption"),
        (says(" \n"), "gave no caption"),
        (says([{"type": "text"}]), "gave no caption"),
    ],
)
def test_an_answer_that_is_no_caption_is_an_error(server: Server, content: bytes, said: str) -> None:
    server.respond = lambda *_: (200, {}, content)
    with pytest.raises(SourceError, match=f"captioner: 127.0.0.1 .*{said}|captioner: 127.0.0.1 {said}"):
        captioner(server).caption([grey(0)])


def test_a_transient_error_is_repeated_and_a_lasting_one_is_raised(server: Server) -> None:
    server.respond = lambda _, number: (503, {}, b"") if number < 3 else (200, {}, says("a cat"))
    assert captioner(server).caption([grey(0)]) == ["a cat"]
    assert len(server.requests) == 3
    server.respond = lambda *_: (500, {}, b"")
    with pytest.raises(SourceError, match=r"captioner: 127\.0\.0\.1 answered 500: nothing, 5 times; try again later"):
        captioner(server).caption([grey(0)])


def test_a_refusal_never_shows_the_key(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_KEY", SECRET)
    server.respond = lambda *_: (401, {}, json.dumps({"error": {"message": f"bad key {SECRET}"}}).encode())
    with pytest.raises(SourceError, match="answered 401: bad key …; check the key") as caught:
        captioner(server, "key=ACME_KEY").caption([grey(0)])
    assert SECRET not in str(caught.value)
    assert len(server.requests) == 1


def test_a_silent_server_meets_the_time_limit(server: Server) -> None:
    release = threading.Event()
    server.respond = lambda *_: (200, {}, says("late") if release.wait(10) else b"")
    try:
        with pytest.raises(SourceError, match=r"captioner: 127\.0\.0\.1 took more than 0\.2 s; raise timeout="):
            captioner(server, "timeout=0.2").caption([grey(0)])
    finally:
        release.set()


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("http://a.example", r"'http://a\.example' must be https://…, or http:// on this machine"),
        ("ftp://user:secret@a.example", "ftp:… has no known form"),
        ("https://user:secret@a.example", "holds a user name"),
        ("https://a.example#size=64x64", "there is no setting 'size'; there are model, key"),
        ("https://a.example#key=NO_SUCH_KEY", "environment variable NO_SUCH_KEY holds no API key"),
    ],
)
def test_a_wrong_address_is_refused(address: str, said: str) -> None:
    with pytest.raises(ConfigError, match=f"^captioner: .*{said}") as caught:
        captioners.find(address, EnginePool())
    assert "secret" not in str(caught.value)


def test_the_user_is_warned_and_no_metadata_is_sent(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_KEY", SECRET)
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", "a private prompt")
    Image.fromarray(grey(90, 64, 64)).save(tmp_path / "probe.png", pnginfo=info)
    options = ["-c", "zoo:zoo-sd", "-c", "zoo:zoo-flux", "-k", "1", "--steps", "1", "--format", "jsonl"]
    result = CliRunner().invoke(
        app, ["attribute", str(tmp_path / "probe.png"), *options, "--captioner", f"{server.url}#key=ACME_KEY"], catch_exceptions=False
    )
    assert json.loads(result.stdout)["evidence"]["caption"] == "grey 90"
    host = server.url.removeprefix("http://")
    assert f"the pictures are sent to {host} to be described" in result.stderr
    assert SECRET not in result.stdout + result.stderr
    assert b"private" not in json.dumps(server.requests).encode()
    assert not sent_picture(server.requests[0][2]).info
    assert captioners.notice("zoo:") == captioners.notice("some/folder") == ""
    assert "secret" not in captioners.notice("https://user:secret@a.example")


def test_the_request_decides_the_identity_of_the_captioner() -> None:
    one, same, other = (HttpCaptioner(f"https://a.example#model={m},timeout={t}") for m, t in (("x", 1), ("x", 2), ("y", 1)))
    assert one.sha256 == same.sha256 != other.sha256
