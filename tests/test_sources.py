"""Candidates that are not engines: folders of given pictures, and an images API on this machine."""

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

from resynth_fast import Attributor, images, zoo
from resynth_fast.batch import run
from resynth_fast.candidates import find
from resynth_fast.candidates.folder import Exemplars
from resynth_fast.candidates.http import HttpCandidate
from resynth_fast.engines.pool import EnginePool
from resynth_fast.errors import BundleError, ConfigError, SourceError
from resynth_fast.http_client import MAX_WAIT_S, Settings
from resynth_fast.report import page as report
from resynth_fast.resynthesis.executor import Executor
from resynth_fast.types import Pixels, Request

SECRET = "sk-verysecret"


@pytest.fixture(scope="module")
def pool() -> EnginePool:
    return EnginePool(threads=1)


@pytest.fixture(scope="module")
def folders(pool: EnginePool, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dozen pictures of each of two zoo generators, of different captions."""
    root = tmp_path_factory.mktemp("given")
    for i, name in enumerate(("zoo-flux", "zoo-sd-v")):
        [candidate] = find([f"zoo:{name}"], pool)
        (root / name).mkdir()
        for j, pixels in enumerate(candidate.make(zoo.prompts()[12 * i : 12 * i + 12], [900 + 12 * i + j for j in range(12)], 8)):
            Image.fromarray(pixels).save(root / name / f"{j:02}.png")
    return root


@pytest.fixture(scope="module")
def probes(pool: EnginePool, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """Three pictures of each of the two, of other captions and with other noise."""
    root = tmp_path_factory.mktemp("probes")
    found: dict[str, list[Path]] = {}
    for name in ("zoo-flux", "zoo-sd-v"):
        [candidate] = find([f"zoo:{name}"], pool)
        for j, pixels in enumerate(candidate.make(zoo.prompts()[40:43], [(1 << 40) + j for j in range(3)], 8)):
            path = root / f"{name}-{j}.png"
            Image.fromarray(pixels).save(path)
            found.setdefault(name, []).append(path)
    return found


# --- given pictures -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mixed(folders: Path) -> Attributor:
    """Pictures of one zoo generator beside two others that can be run."""
    return Attributor.open([f"acme={folders / 'zoo-flux'}", "zoo:zoo-sd", "zoo:zoo-sd-v"], references=2, steps=4, threads=1)


def test_folders_alone_are_told_apart_by_their_own_pictures(tmp_path: Path) -> None:
    """A grainy and a smooth source of pictures that show much the same."""
    rng = np.random.default_rng(0)

    def scene(grain: float) -> Image.Image:
        x, y = np.mgrid[0:64, 0:64] / 64
        colour, turn = rng.uniform(60, 190, 3), rng.uniform(0, 6)
        shade = 40 * np.sin(turn + 4 * x + 3 * y)[..., None] + rng.normal(0, grain, (64, 64, 3))
        return Image.fromarray(np.clip(colour + shade, 0, 255).astype(np.uint8))

    for name, grain in (("grainy", 9.0), ("smooth", 1.5)):
        for folder in (name, f"probes-{name}"):
            (tmp_path / folder).mkdir()
            for i in range(10):
                scene(grain).save(tmp_path / folder / f"{i}.png")
    attributor = Attributor.open([f"{name}={tmp_path / name}" for name in ("grainy", "smooth")], references=4, threads=1)
    for name in ("grainy", "smooth"):
        verdicts = attributor(sorted((tmp_path / f"probes-{name}").iterdir()))
        assert sum(v.candidates[0].name == name for v in verdicts) >= 9
        assert all((len(c.resyntheses), len(c.exemplars)) == (0, 4) for v in verdicts for c in v.candidates)


def test_a_folder_is_named_beside_candidates_that_can_be_run(mixed: Attributor, probes: dict[str, list[Path]]) -> None:
    assert sum(v.candidates[0].name == "acme" for v in mixed(probes["zoo-flux"])) >= 2
    assert sum(v.candidates[0].name == "zoo-sd-v" for v in mixed(probes["zoo-sd-v"])) >= 2


def test_the_record_and_the_page_tell_given_from_made(mixed: Attributor, probes: dict[str, list[Path]]) -> None:
    [result] = run(mixed, [str(probes["zoo-flux"][0])], lambda done, of: None)
    counts = {c["name"]: (c["resyntheses"], c["references"]) for c in result.record["candidates"]}
    assert counts == {"acme": (0, 12), "zoo-sd": (2, 2), "zoo-sd-v": (2, 2)}
    assert result.record["evidence"]["seeds"] == [0, 1]
    assert any("given pictures" in warning for warning in result.record["warnings"])
    page = report.render([result.record], [result.images])
    assert page.count("given picture</li>") == 12
    assert "Picture 1 given for acme" in page
    assert "Resynthesis 1 by acme" not in page
    assert "Resynthesis 2 by zoo-sd" in page


@pytest.mark.parametrize(("others", "references"), [(["zoo:zoo-sd", "zoo:zoo-sd-v"], 1), ([], 12)])
def test_a_probe_is_never_its_own_reference(folders: Path, others: list[str], references: int) -> None:
    attributor = Attributor.open(
        [f"acme={folders / 'zoo-flux'}", f"other={folders / 'zoo-sd-v'}", *others], references=references, steps=1, threads=1
    )
    probe = folders / "zoo-flux" / "03.png"
    [verdict] = attributor([probe])
    acme = next(c for c in verdict.candidates if c.name == "acme")
    pixels = images.read(probe).pixels
    assert len(acme.exemplars) == 11
    assert not any(np.array_equal(given, pixels) for given in acme.exemplars)
    assert any("not compared with itself" in warning for warning in verdict.warnings)


def test_given_pictures_are_resynthesised_once_and_verdicts_do_not_depend_on_company(
    mixed: Attributor, probes: dict[str, list[Path]], monkeypatch: pytest.MonkeyPatch
) -> None:
    both = mixed([probes["zoo-flux"][0], probes["zoo-sd-v"][0]])
    made: list[int] = []
    original = Executor.__call__

    def counted(self: Executor, requests: list[Request], **rest: float | None) -> dict[Request, Pixels]:
        made.append(len({request.prompt for request in requests}))
        return original(self, requests, **rest)

    monkeypatch.setattr(Executor, "__call__", counted)
    [alone] = mixed([probes["zoo-sd-v"][0]])
    assert made == [1]  # the probe's own caption, none of the given pictures'
    np.testing.assert_allclose([c.score for c in both[1].candidates], [c.score for c in alone.candidates], atol=1e-3)


def test_the_nearest_are_nearest_in_content_and_equal_files_count_once(tmp_path: Path, pool: EnginePool) -> None:
    files = tuple((f"{i:064}", Path(f"{i}.png")) for i in range(4))
    offset = np.array([100.0, 0, 0])  # what the source's pictures have in common
    points = np.array([[0, 1.0, 0], [0, 0, 1.0], [0, -1.0, 0], [0, 0, -1.0]]) + offset
    given = Exemplars("acme", files, points)
    chosen = given.nearest(np.array([0.0, 5, 1]), 2, "")
    assert chosen.files == (Path("0.png"), Path("1.png"))
    assert given.nearest(np.array([0.0, 5, 1]), 9, files[0][0]).files[0] == Path("1.png")
    Image.new("RGB", (64, 64), "red").save(tmp_path / "b.png")
    (tmp_path / "sub").mkdir()
    for name in ("a.png", "sub/c.png"):
        (tmp_path / name).write_bytes((tmp_path / "b.png").read_bytes())
    [candidate] = find([f"acme={tmp_path}"], pool)
    assert list(candidate.files.values()) == [tmp_path / "a.png"]


def test_the_hash_of_a_folder_is_that_of_its_pictures(tmp_path: Path, pool: EnginePool) -> None:
    def sha256(colours: list[str]) -> str:
        for path in tmp_path.glob("*.png"):
            path.unlink()
        for i, colour in enumerate(colours):
            Image.new("RGB", (64, 64), colour).save(tmp_path / f"{i}.png")
        return find([f"acme={tmp_path}"], pool)[0].sha256

    assert sha256(["red", "blue"]) == sha256(["blue", "red", "red"]) != sha256(["red"])


def test_bad_folders_say_what_is_wrong(tmp_path: Path, folders: Path, pool: EnginePool) -> None:
    with pytest.raises(ConfigError, match=r"candidate acme: .*nowhere is no folder; name the folder"):
        find(["acme=/nowhere"], pool)
    (tmp_path / "empty").mkdir()
    with pytest.raises(BundleError, match=r"candidate acme: no picture found"):
        find([f"acme={tmp_path / 'empty'}"], pool)
    (tmp_path / "bad.png").write_bytes(b"no picture")
    with pytest.raises(BundleError, match=r"candidate acme: .*bad\.png: is not a readable .* take it out of the folder"):
        Attributor.open([f"acme={tmp_path}"], threads=1)
    with pytest.raises(ConfigError, match=r"'acme' is named twice"):
        find([f"acme={folders / 'zoo-flux'}"] * 2, pool)
    with pytest.raises(ConfigError, match=r"together lends resyntheses, and acme makes none"):
        Attributor.open([f"acme={folders / 'zoo-flux'}", "zoo:"], together=True, threads=1)


# --- an images API ------------------------------------------------------------------------------------------------


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
    """A clock for pauses that nobody waits for."""

    def __init__(self) -> None:
        self.pauses: list[float] = []

    def __call__(self, seconds: float) -> None:
        self.pauses.append(seconds)


@pytest.fixture
def candidate(server: Server, tmp_path: Path) -> Callable[..., HttpCandidate]:
    def make(settings: str = "", **more: Any) -> HttpCandidate:
        return HttpCandidate("acme", f"{server.url}#{settings}", store=tmp_path / "store", **{"wait": Waits(), **more})

    return make


def test_a_request_is_what_the_interface_asks_for(
    server: Server, candidate: Callable[..., HttpCandidate], monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_pictures_are_kept_and_not_paid_for_twice(server: Server, candidate: Callable[..., HttpCandidate], tmp_path: Path) -> None:
    first = candidate("model=m").make(["a", "a", "b"], [0, 1, 0], 8)
    assert len(server.requests) == 3
    again = candidate("model=m,limit=1,timeout=5").make(["b", "a", "a"], [0, 1, 0], 20)
    assert len(server.requests) == 3
    for a, b in zip(first, again[::-1], strict=True):
        np.testing.assert_array_equal(a, b)
    candidate("model=other").make(["a"], [0], 8)
    candidate("model=m,seed=yes").make(["a"], [0], 8)
    assert len(server.requests) == 5
    # a damaged one is put aside and asked for again
    kept = [path for path in (tmp_path / "store").iterdir() if not path.suffix]
    assert len(kept) == 5
    for path in kept:
        path.write_bytes(b"damaged")
    candidate("model=m").make(["a"], [0], 8)
    assert len(server.requests) == 6
    assert not [path for path in (tmp_path / "store").iterdir() if path.suffix in (".part", ".tmp")]


def test_a_run_that_was_cut_off_goes_on_where_it_stopped(server: Server, candidate: Callable[..., HttpCandidate]) -> None:
    prompts = [str(i) for i in range(8)]
    with pytest.raises(ConfigError, match=r"candidate acme: the cap of 5 requests a run is reached; what was made is kept: run again"):
        candidate("limit=5").make(prompts, [0] * 8, 8)
    assert len(server.requests) == 5
    assert len(candidate("limit=3").make(prompts, [0] * 8, 8)) == 8
    assert len(server.requests) == 8
    assert len({body["prompt"] for _, _, body in server.requests}) == 8


def test_a_budget_is_a_cap_too_and_repeated_requests_count(server: Server, candidate: Callable[..., HttpCandidate]) -> None:
    server.respond = lambda body, number: (500, {}, b"")
    with pytest.raises(ConfigError, match="cap of 3 requests"):
        candidate("price=0.04,budget=0.12").make(["a"], [0], 8)
    assert len(server.requests) == 3
    assert Settings(price=0.1, budget=0.3).cap == 3
    assert Settings(price=0.1, budget=100.0, limit=7).cap == 7


def test_what_may_pass_is_repeated_after_a_pause(server: Server, candidate: Callable[..., HttpCandidate]) -> None:
    answers: list[Answer] = [(429, {"Retry-After": "17"}, b"{}"), (503, {}, b""), (502, {}, b"<html>")]
    server.respond = lambda body, number: answers[number - 1] if number <= 3 else good(body, number)
    wait = Waits()
    assert len(candidate("per_minute=100000", wait=wait).make(["a"], [0], 8)) == 1
    assert len(server.requests) == 4
    long = [pause for pause in wait.pauses if pause > 0.1]
    assert len(long) == 3
    assert long[0] >= 17
    assert max(long[1:]) < 17


def test_what_does_not_pass_is_an_error_with_the_servers_words(server: Server, candidate: Callable[..., HttpCandidate]) -> None:
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
        (b"<html>", "no picture of an images API"),
        (b"[" * 100_000, "no picture of an images API"),
        (b"{}", "no picture of an images API"),
        (b'{"data": []}', "no picture of an images API"),
        (b'{"data": [{"b64_json": 1}]}', "no picture of an images API"),
        (b'{"data": [{"b64_json": "%%%"}]}', "no picture of an images API"),
        (b'{"data": [{"b64_json": "AAAA"}]}', "sent what is no usable picture"),
        (b'{"data": [{"url": "http://127.0.0.1/x.png"}]}', "sent a link, which is not opened"),
    ],
)
def test_an_answer_that_is_no_picture_is_an_error_and_not_kept(
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


def test_a_server_that_is_late_is_not_asked_again(server: Server, candidate: Callable[..., HttpCandidate]) -> None:
    def late(body: dict[str, Any], number: int) -> Answer:
        time.sleep(0.6)
        return good(body, number)

    server.respond = late
    with pytest.raises(SourceError, match=r"took more than 0\.2 s; raise timeout="):
        candidate("timeout=0.2").make(["a"], [0], 8)
    assert len(server.requests) == 1


def test_an_answer_in_drops_has_no_more_time_than_another(server: Server, candidate: Callable[..., HttpCandidate]) -> None:
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


def test_requests_keep_to_the_rate_and_to_those_under_way(server: Server, candidate: Callable[..., HttpCandidate]) -> None:
    def slow(body: dict[str, Any], number: int) -> Answer:
        time.sleep(0.05)
        return good(body, number)

    server.respond = slow
    wait = Waits()
    candidate("per_minute=60,parallel=2", wait=wait).make([str(i) for i in range(6)], [0] * 6, 8)
    assert server.most == 2
    # nobody waits here, so the turns lie ever further ahead, a second apart
    assert sorted(round(pause) for pause in wait.pauses) == [1, 2, 3, 4, 5]


def test_a_picture_is_attributed_with_an_api_among_the_candidates(
    server: Server, probes: dict[str, list[Path]], pool: EnginePool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    [flux] = find(["zoo:zoo-flux"], pool)

    def respond(body: dict[str, Any], number: int) -> Answer:
        buffer = io.BytesIO()
        Image.fromarray(flux.make([body["prompt"]], [body["seed"]], 4)[0]).save(buffer, "PNG")
        return 200, {}, json.dumps({"data": [{"b64_json": base64.b64encode(buffer.getvalue()).decode()}]}).encode()

    server.respond = respond
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("ACME_KEY", SECRET)
    attributor = Attributor.open([f"acme={server.url}#seed=yes,key=ACME_KEY,parallel=1", "zoo:zoo-sd"], references=2, steps=4, threads=1)
    [result] = run(attributor, [str(probes["zoo-flux"][0])], lambda done, of: None)
    assert result.record["candidates"][0]["name"] == "acme"
    assert result.record["candidates"][0]["resyntheses"] == 2
    assert any("127.0.0.1" in warning for warning in result.record["warnings"])
    assert SECRET not in json.dumps(result.record)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
