"""A candidate behind an HTTP images API of OpenAI's form: `POST /v1/images/generations`.

    NAME=https://HOST[/PATH][#KEY=VALUE,…]      for example  acme=https://api.acme.example#model=acme-2,key=ACME_KEY,limit=50

Settings after the # are never sent as part of the address; `http_client.Settings` lists them. Every picture is cached on
disk under a hash of its request, so a run that was interrupted continues where it stopped and pays for no picture twice.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from .. import files, images
from ..engines.pool import EnginePool
from ..errors import InputError, SourceError
from ..http_client import Client, Settings
from ..plugins import scheme
from ..types import Pixels
from . import GenerativeCandidate, split_name

KEY_VERSION = 1


def matches(text: str) -> bool:
    """Whether `text` is NAME=http://… or NAME=https://…."""
    name, source = split_name(text)
    return bool(name) and scheme(source) in ("http", "https")


def open(text: str, pool: EnginePool) -> list[HttpCandidate]:
    """The candidate NAME=ADDRESS."""
    return [HttpCandidate(*split_name(text))]


class HttpCandidate(GenerativeCandidate):
    """Requests pictures from a server and caches them. Two runs at once may each pay for the same picture."""

    def __init__(self, name: str, address: str, *, store: Path | None = None, wait: Callable[[float], None] = time.sleep) -> None:
        """`store`: the folder that keeps pictures, by default in the user's cache; `wait`: how to pass seconds. ConfigError."""
        base, _, settings = address.partition("#")
        self.name = name
        self.family = name
        self.settings = Settings.read(name, settings)
        self.client = Client(name, base, self.settings, wait)
        self.sha256 = _sha256(self._request("", 0))
        self.warnings: tuple[str, ...] = (
            f"the pictures of {name} were made by {self.client.host}, whose generator may have changed since",
        )
        self._store = store or files.user_cache() / "http"

    def make(self, prompts: Sequence[str], seeds: Sequence[int], steps: int) -> list[Pixels]:
        """See `GenerativeCandidate.make`. The server chooses the number of steps.

        Raises as `Client.picture`; the pictures received before the error are kept.
        """
        with files.write_errors(self._store):
            self._store.mkdir(parents=True, exist_ok=True)
        pool = ThreadPoolExecutor(self.settings.parallel)
        try:
            return list(pool.map(self._picture, prompts, seeds))
        finally:
            pool.shutdown(cancel_futures=True)

    def _picture(self, prompt: str, seed: int) -> Pixels:
        request = self._request(prompt, seed)
        path = self._store / _sha256(request)
        if path.exists():
            try:
                return images.read(path).pixels
            except InputError:  # the file was damaged: it is put aside, and the picture requested again
                os.replace(path, path.with_suffix(".bad"))
        self._write(path.with_suffix(".json"), json.dumps(request, indent=2).encode())
        incoming = path.with_suffix(f".{os.urandom(4).hex()}.part")
        self._write(incoming, self.client.picture(request["body"]))
        try:
            pixels = images.read(incoming).pixels
        except InputError as error:
            os.replace(incoming, path.with_suffix(".bad"))
            raise SourceError(
                f"candidate {self.name}: {self.client.host} sent no usable picture ({error}); check the address and the model"
            ) from error
        os.replace(incoming, path)
        return pixels

    def _write(self, path: Path, content: bytes) -> None:
        with files.write_errors(path):
            files.write(path, content)

    def _request(self, prompt: str, seed: int) -> dict[str, Any]:
        """Everything that a picture depends on. The seed counts even if it is not sent: it tells pictures of one prompt apart."""
        settings = self.settings
        body: dict[str, Any] = {"prompt": prompt, "n": 1}
        fields = {"model": settings.model, "size": settings.size, "quality": settings.quality}
        body |= {field: value for field, value in fields.items() if value}
        if settings.format != "none":
            body["response_format"] = settings.format
        if settings.seed:
            body["seed"] = seed
        return {"version": KEY_VERSION, "url": self.client.url, "seed": seed, "body": body}


def _sha256(request: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
