"""Candidates behind an images API, here a server on the loopback."""

from __future__ import annotations

import base64
import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from loopback import Answer, Server
from PIL import Image

from resynth_fast import Attributor
from resynth_fast.candidates import find
from resynth_fast.candidates.http import HttpCandidate
from resynth_fast.engines.pool import EnginePool
from resynth_fast.errors import ConfigError, SourceError
from resynth_fast.http_client import MAX_WAIT_S, Settings
from resynth_fast.report.batch import run

SECRET = "sk-verysecret"


def png(seed: int = 0, side: int = 64) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def good(body: dict[str, Any], number: int) -> Answer:
    return 200, {}, json.dumps({"created": 1, "data": [{"b64_json": base64.b64encode(png(number)).decode()}]}).encode()


@pytest.fixture
def server(server: Server) -> Server:
    server.respond = good
    return server


class Waits:
    """Records pauses in place of sleeping."""

    def __init__(self) -> None:
        self.pauses: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.pauses.append(seconds)


@pytest.fixture
def candidate(server: Server, tmp_path: Path) -> Callable[..., HttpCandidate]:
    def make(settings: str = "", **more: Any) -> HttpCandidate:
        return HttpCandidate("acme", f"{server.url}#{settings}", store=tmp_path / "store", **{"wait": Waits(), **more})

    return make


def test_a_request_follows_the_interface(server: Server, candidate: Callable[..., HttpCandidate], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_KEY", SECRET)
    acme = candidate("model=acme-2,size=64x64,key=ACME_KEY,seed=yes,quality=low")
    [picture] = acme.make(["a cup"], [7], 8)
    np.testing.assert_array_equal(picture, np.asarray(Image.open(io.BytesIO(png(1)))))
    [(path, headers, body)] = server.requests
    assert path == "/v1/images/generations"
    assert headers["Authorization"] == f"Bearer {SECRET}"
    assert body == {
        "model": "acme-2",
        "prompt": "a cup",
        "n": 1,
        "size": "64x64",
        "quality": "low",
        "response_format": "b64_json",
        "seed": 7,
    }
    candidate("format=none").make(["a cup"], [7], 8)
    assert server.requests[1][2] == {"prompt": "a cup", "n": 1}
    assert "Authorization" not in server.requests[1][1]


@pytest.mark.parametrize(
    ("base", "url"),
    [
        ("https://a.example", "https://a.example/v1/images/generations"),
        ("https://a.example/v1/", "https://a.example/v1/images/generations"),
        ("https://a.example:8443/api?version=2", "https://a.example:8443/api/v1/images/generations?version=2"),
        ("http://localhost:1", "http://localhost:1/v1/images/generations"),
        ("http://[::1]:1/v1", "http://[::1]:1/v1/images/generations"),
    ],
)
def test_the_address_is_completed(base: str, url: str) -> None:
    assert HttpCandidate("acme", base).client.url == url


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("http://a.example", r"'http://a.example' must be https://…, or http:// on this machine"),
        ("ftp://a.example", r"must be https"),
        ("https://", r"must be https"),
        ("https://[", r"cannot be read"),
        ("https://a.example:x", r"cannot be read"),
        ("https://user:secret@a.example", r"holds a user name; put the key into an environment variable"),
        ("https://a.example#modle=x", r"there is no setting 'modle'; there are model, key,"),
        ("https://a.example#limit=0", r"limit is '0'; it must be a whole number above 0"),
        ("https://a.example#limit=1.5", r"limit is '1.5'; it must be a whole number above 0"),
        ("https://a.example#timeout=nan", r"timeout is 'nan'; it must be a number above 0"),
        ("https://a.example#seed=1", r"seed is '1'; it must be yes or no"),
        ("https://a.example#format=url", r"format is 'url'; it must be b64_json or none"),
        ("https://a.example#price=1", r"price and budget belong together"),
        ("https://a.example#key=ACME_NO_SUCH_KEY", r"environment variable ACME_NO_SUCH_KEY holds no API key; export it"),
    ],
)
def test_a_wrong_address_or_setting_is_refused_by_name(address: str, said: str) -> None:
    with pytest.raises(ConfigError, match=f"candidate acme: .*{said}") as caught:
        HttpCandidate("acme", address)
    assert "secret" not in str(caught.value)


def test_pictures_are_cached_and_not_paid_for_twice(server: Server, candidate: Callable[..., HttpCandidate], tmp_path: Path) -> None:
    first = candidate("model=m").make(["a", "a", "b"], [0, 1, 0], 8)
    assert len(server.requests) == 3
    again = candidate("model=m,limit=1,timeout=5").make(["b", "a", "a"], [0, 1, 0], 20)
    assert len(server.requests) == 3
    for a, b in zip(first, again[::-1], strict=True):
        np.testing.assert_array_equal(a, b)
    candidate("model=other").make(["a"], [0], 8)
    candidate("model=m,seed=yes").make(["a"], [0], 8)
    assert len(server.requests) == 5
    # a damaged picture is set aside and requested again
    kept = [path for path in (tmp_path / "store").iterdir() if not path.suffix]
    assert len(kept) == 5
    for path in kept:
        path.write_bytes(b"damaged")
    candidate("model=m").make(["a"], [0], 8)
    assert len(server.requests) == 6
    assert not [path for path in (tmp_path / "store").iterdir() if path.suffix in (".part", ".tmp")]


def test_an_interrupted_run_continues_where_it_stopped(server: Server, candidate: Callable[..., HttpCandidate]) -> None:
    prompts = [str(i) for i in range(8)]
    with pytest.raises(
        ConfigError, match=r"candidate acme: the cap of 5 requests a run is reached \(the pictures so far are cached\); run again"
    ):
        candidate("limit=5").make(prompts, [0] * 8, 8)
    assert len(server.requests) == 5
    assert len(candidate("limit=3").make(prompts, [0] * 8, 8)) == 8
    assert len(server.requests) == 8
    assert len({body["prompt"] for _, _, body in server.requests}) == 8


def test_a_budget_caps_requests_and_repetitions_count(server: Server, candidate: Callable[..., HttpCandidate]) -> None:
    server.respond = lambda body, number: (500, {}, b"")
    with pytest.raises(ConfigError, match="cap of 3 requests"):
        candidate("price=0.04,budget=0.12").make(["a"], [0], 8)
    assert len(server.requests) == 3
    assert Settings(price=0.1, budget=0.3).cap == 3
    assert Settings(price=0.1, budget=100.0, limit=7).cap == 7


def test_a_transient_error_is_repeated_after_a_pause(server: Server, candidate: Callable[..., HttpCandidate]) -> None:
    answers: list[Answer] = [(429, {"Retry-After": "17"}, b"{}"), (503, {}, b""), (502, {}, b"<html>")]
    server.respond = lambda body, number: answers[number - 1] if number <= 3 else good(body, number)
    wait = Waits()
    assert len(candidate("per_minute=100000", wait=wait).make(["a"], [0], 8)) == 1
    assert len(server.requests) == 4
    long = [pause for pause in wait.pauses if pause > 0.1]
    assert len(long) == 3
    assert long[0] >= 17
    assert max(long[1:]) < 17


def test_a_lasting_error_quotes_the_server(server: Server, candidate: Callable[..., HttpCandidate]) -> None:
    server.respond = lambda body, number: (503, {}, json.dumps({"error": {"message": "all\x1b[31m busy"}}).encode())
    with pytest.raises(SourceError, match=r"candidate acme: 127\.0\.0\.1 answered 503: all\\x1b\[31m busy, 5 times; try again later"):
        candidate().make(["a"], [0], 8)
    assert len(server.requests) == 5


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 429])
def test_a_refusal_is_not_repeated_and_never_shows_the_key(
    server: Server, candidate: Callable[..., HttpCandidate], monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setenv("ACME_KEY", SECRET)
    server.respond = lambda body, number: (
        status,
        {"Retry-After": str(int(MAX_WAIT_S) + 1)},
        json.dumps({"error": {"message": f"bad key {SECRET}"}}).encode(),
    )
    with pytest.raises(SourceError, match=f"answered {status}: bad key …; check") as caught:
        candidate("key=ACME_KEY").make(["a"], [0], 8)
    assert len(server.requests) == 1
    assert SECRET not in str(caught.value)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"<html>", "not answer as an images API does"),
        (b"[" * 100_000, "not answer as an images API does"),
        (b"{}", "not answer as an images API does"),
        (b'{"data": []}', "not answer as an images API does"),
        (b'{"data": [{"b64_json": 1}]}', "not answer as an images API does"),
        (b'{"data": [{"b64_json": "%%%"}]}', "not answer as an images API does"),
        (b'{"data": [{"b64_json": "AAAA"}]}', "sent no usable picture"),
        (b'{"data": [{"url": "http://127.0.0.1/x.png"}]}', "sent a link, which is not opened"),
    ],
)
def test_an_answer_that_is_no_picture_is_an_error_and_not_cached(
    server: Server, candidate: Callable[..., HttpCandidate], content: bytes, said: str
) -> None:
    server.respond = lambda body, number: (200, {}, content)
    with pytest.raises(SourceError, match=said):
        candidate().make(["a"], [0], 8)
    assert len(server.requests) == 1
    server.respond = good
    assert len(candidate().make(["a"], [0], 8)) == 1


def test_a_redirect_is_not_followed(server: Server, candidate: Callable[..., HttpCandidate]) -> None:
    server.respond = lambda body, number: (307, {"Location": f"{server.url}/elsewhere"}, b"")
    with pytest.raises(SourceError, match="answered 307"):
        candidate().make(["a"], [0], 8)
    assert [path for path, _, _ in server.requests] == ["/v1/images/generations"]


def test_a_request_that_timed_out_is_not_repeated(server: Server, candidate: Callable[..., HttpCandidate]) -> None:
    def late(body: dict[str, Any], number: int) -> Answer:
        time.sleep(0.6)
        return good(body, number)

    server.respond = late
    with pytest.raises(SourceError, match=r"took more than 0\.2 s; raise timeout="):
        candidate("timeout=0.2").make(["a"], [0], 8)
    assert len(server.requests) == 1


def test_a_slowly_dripping_answer_meets_the_same_time_limit(server: Server, candidate: Callable[..., HttpCandidate]) -> None:
    server.piece, server.pause_s = 1, 0.02
    start = time.monotonic()
    with pytest.raises(SourceError, match=r"took more than 0\.3 s; raise timeout="):
        candidate("timeout=0.3").make(["a"], [0], 8)
    assert time.monotonic() - start < 3
    assert len(server.requests) == 1


def test_an_endless_answer_is_not_read(server: Server, candidate: Callable[..., HttpCandidate], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resynth_fast.http_client.MAX_ANSWER_BYTES", 1000)
    with pytest.raises(SourceError, match="answered with more than 1,000 bytes"):
        candidate().make(["a"], [0], 8)


def test_a_server_that_cannot_be_reached_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"127\.0\.0\.1 cannot be reached \(NewConnectionError\), 5 times"):
        HttpCandidate("acme", "http://127.0.0.1:9", store=tmp_path, wait=Waits()).make(["a"], [0], 8)


def test_requests_respect_the_rate_and_the_limit_of_parallel_ones(server: Server, candidate: Callable[..., HttpCandidate]) -> None:
    def slow(body: dict[str, Any], number: int) -> Answer:
        time.sleep(0.05)
        return good(body, number)

    server.respond = slow
    wait = Waits()
    candidate("per_minute=60,parallel=2", wait=wait).make([str(i) for i in range(6)], [0] * 6, 8)
    assert server.most == 2
    # no pause is slept here, so the turns lie ever further ahead, a second apart
    assert sorted(round(pause) for pause in wait.pauses) == [1, 2, 3, 4, 5]


def test_a_picture_is_attributed_with_an_api_among_the_candidates(
    server: Server, zoo_probes: dict[str, list[Path]], zoo_pool: EnginePool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    [flux] = find(["zoo:zoo-flux"], zoo_pool)

    def respond(body: dict[str, Any], number: int) -> Answer:
        buffer = io.BytesIO()
        Image.fromarray(flux.make([body["prompt"]], [body["seed"]], 4)[0]).save(buffer, "PNG")
        return 200, {}, json.dumps({"data": [{"b64_json": base64.b64encode(buffer.getvalue()).decode()}]}).encode()

    server.respond = respond
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("ACME_KEY", SECRET)
    attributor = Attributor.open([f"acme={server.url}#seed=yes,key=ACME_KEY,parallel=1", "zoo:zoo-sd"], references=2, steps=4, threads=1)
    [result] = run(attributor, [str(zoo_probes["zoo-flux"][0])], lambda done, of: None)
    assert result.record["candidates"][0]["name"] == "acme"
    assert result.record["candidates"][0]["resyntheses"] == 2
    assert any("127.0.0.1" in warning for warning in result.record["warnings"])
    assert SECRET not in json.dumps(result.record)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
