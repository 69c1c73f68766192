"""Checkpoints of a hub, fetched from a loopback server that answers as a hub does."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from resynth_fast.errors import ConfigError
from resynth_fast.export import hub

pytest.importorskip("huggingface_hub")

COMMIT = "a" * 40
PIPELINE = {
    "model_index.json": b'{"_class_name": "StableDiffusionPipeline"}',
    "unet/config.json": b"{}",
    "unet/diffusion_pytorch_model.safetensors": b"weights",
    "unet/diffusion_pytorch_model.fp16.safetensors": b"the same in 16 bits",
    "unet/diffusion_pytorch_model.bin": b"a pickle",
    "tokenizer/merges.txt": b"a b",
    "v1-5-pruned.safetensors": b"all in one file",
    "v1-5-pruned.ckpt": b"a pickle",
}


class Hub(BaseHTTPRequestHandler):
    """As much of a hub as fetching takes: what there is of a revision, and files with their tags."""

    asked: list[str]
    agents: list[str]

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        self.asked.append(self.path)
        self.agents.append(self.headers["User-Agent"])
        path = self.path.partition("?")[0]
        name = path.removeprefix(f"/org/model/resolve/{COMMIT}/").removeprefix("/org/model/resolve/main/")
        if path.startswith("/api/models/org/model/revision/"):
            known = path.endswith(("/main", COMMIT))
            about = {"id": "org/model", "sha": COMMIT, "siblings": [{"rfilename": name} for name in PIPELINE]}
            self._send(200 if known else 404, json.dumps(about).encode(), {} if known else {"X-Error-Code": "RevisionNotFound"}, body)
        elif path.startswith("/api/models/org/model/tree/"):
            entries = [{"type": "file", "path": n, "size": len(c), "oid": sha256(c).hexdigest()[:40]} for n, c in PIPELINE.items()]
            self._send(200, json.dumps(entries).encode(), {}, body)
        elif name in PIPELINE:
            tag = sha256(PIPELINE[name]).hexdigest()[:40]
            self._send(200, PIPELINE[name], {"ETag": f'"{tag}"', "X-Repo-Commit": COMMIT}, body)
        elif "gated" in path:
            self._send(403, b"{}", {"X-Error-Code": "GatedRepo"}, body)
        else:
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, body)

    def _send(self, status: int, content: bytes, headers: dict[str, str], body: bool) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(content)), "Content-Type": "application/json", **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[ThreadingHTTPServer]:
    found = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Hub.asked, Hub.agents = [], []
    thread = threading.Thread(target=found.serve_forever, daemon=True)
    thread.start()
    yield found
    found.shutdown()
    found.server_close()


def fetched(server: ThreadingHTTPServer, home: Path, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """What `hub.folder` answers in a process whose hub is the server: the address is read when the library is imported."""
    code = f"from resynth_fast.export import hub; print(hub.folder(*{arguments!r}, pipeline=True))"
    settings = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "no_proxy": "*"}
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    return subprocess.run(
        [sys.executable, "-P", "-c", code], env={**inherited, **settings, **environment}, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_only_files_that_the_exporter_reads_are_fetched_and_no_pickle(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    done = fetched(server, tmp_path, "hub:org/model")
    assert done.returncode == 0, done.stderr[-1000:]
    folder = Path(done.stdout.splitlines()[-1])
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    wanted = {"model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors", "tokenizer/merges.txt"}
    assert found == {name: PIPELINE[name] for name in wanted}
    assert Hub.agents
    assert not [agent for agent in Hub.agents if "torch/" in agent], "the request describes the machine"
    from resynth_fast.export import checkpoints

    assert checkpoints._roots(folder)[1].name == "blobs", "links into the cache's own store would be refused"
    again = fetched(server, tmp_path, "hub:org/model", HF_HUB_OFFLINE="1")
    assert again.stdout == done.stdout, "once is enough"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [
        ("hub:org/nothing", "the hub has no org/nothing"),
        ("hub:org/gated", "org/gated is gated; accept its licence"),
        ("hub:org/model@v9", "org/model has no revision 'v9'"),
    ],
)
def test_a_checkpoint_that_cannot_be_fetched_is_named(server: ThreadingHTTPServer, tmp_path: Path, checkpoint: str, message: str) -> None:
    done = fetched(server, tmp_path, checkpoint)
    assert f"ConfigError: {message}" in done.stderr, done.stderr[-1000:]


@pytest.mark.slow
def test_without_a_network_the_error_names_the_way_out(server: ThreadingHTTPServer, tmp_path: Path) -> None:
    done = fetched(server, tmp_path, "hub:org/model", HF_HUB_OFFLINE="1")
    assert "ConfigError: org/model cannot be fetched" in done.stderr
    assert "unset HF_HUB_OFFLINE" in done.stderr
    assert not Hub.asked


def test_a_missing_folder_is_never_looked_up_on_a_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="no folder org/model; for a checkpoint on a hub write hub:org/model"):
        hub.folder("org/model")
    with pytest.raises(ConfigError, match="write hub:ORG/NAME"):
        hub.folder("hub:../../etc")


@pytest.mark.parametrize(
    ("checkpoint", "name"), [("hub:org/model", "model"), ("hub:org/a.b-c@main", "a.b-c"), ("some/folder/", "folder"), ("x.onnx", "x.onnx")]
)
def test_a_bundle_takes_the_name_of_its_checkpoint(checkpoint: str, name: str) -> None:
    assert hub.name_of(checkpoint) == name
