"""A captioner behind any endpoint that takes pictures in OpenAI's form: `POST /v1/chat/completions`.

    https://HOST[/PATH][#KEY=VALUE,…]      for example  https://api.acme.example#model=acme-vision,key=ACME_KEY

What follows the # is never sent as part of the address; `Settings` lists it. A picture leaves the machine only because
the user names such an address: its pixels, never the file, whose metadata may tell more than it shows.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import urlsplit

from PIL import Image

from ..bundle import Bundle
from ..engines.pool import EnginePool
from ..errors import SourceError
from ..http_client import Client, EndpointSettings
from ..images import cleaned
from ..plugins import scheme
from ..types import Pixels

INSTRUCTION = (
    "Describe this picture in one sentence of at most forty words, as a prompt from which a text-to-image generator would "
    "make it: subject, setting, composition, style. Answer with the sentence alone."
)
MAX_SIDE_PX = 1024
"""Larger pictures are sent smaller: a caption needs no more."""
MAX_CHARS = 2000


@dataclass(frozen=True, kw_only=True)
class Settings(EndpointSettings):
    """What may follow the # of the address."""

    ROLE: ClassVar[str] = "captioner"
    KEPT: ClassVar[str] = ""

    limit: int = 1000
    timeout: float = 60.0
    temperature: bool = True
    """Whether temperature 0 is asked for; no, for a server that refuses it."""


def matches(source: str | Bundle) -> bool:
    """Whether `source` is an address."""
    return isinstance(source, str) and scheme(source) in ("http", "https")


def open(text: str, pool: EnginePool) -> HttpCaptioner:
    """The captioner at an address."""
    return HttpCaptioner(text)


def notice(text: str) -> str:
    """Pictures leave this machine: which host gets them."""
    host = urlsplit(text).netloc.rpartition("@")[2]
    return f"the pictures are sent to {host} to be described, without their metadata"


class HttpCaptioner:
    """Asks a server what a picture shows."""

    def __init__(self, address: str, *, wait: Callable[[float], None] = time.sleep) -> None:
        """`wait`: how to pass seconds. ConfigError for an address, a setting or a key that cannot be used."""
        base, _, settings = address.partition("#")
        self.settings = Settings.read("", settings)
        self.client = Client("", base, self.settings, wait, path="chat/completions")
        self.name = f"{self.settings.model} at {self.client.host}" if self.settings.model else self.client.host
        asked = {"url": self.client.url, "body": self._body(""), "max_side_px": MAX_SIDE_PX}
        self.sha256 = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()

    def caption(self, pictures: Sequence[Pixels]) -> list[str]:
        """See `Captioner.caption`; SourceError if the server does not answer with one, ConfigError once this run's cap is reached."""
        pool = ThreadPoolExecutor(self.settings.parallel)
        try:
            return list(pool.map(self._describe, pictures))
        finally:
            pool.shutdown(cancel_futures=True)

    def _describe(self, picture: Pixels) -> str:
        content = self.client.answer(self._body(_data_url(picture)))
        try:
            text = json.loads(content)["choices"][0]["message"]["content"]
        except (KeyError, IndexError, TypeError, ValueError, RecursionError) as error:
            raise SourceError(f"captioner: {self.client.host} did not answer with a chat completion; check the address") from error
        caption = " ".join(cleaned(text).split()).strip('"“”') if isinstance(text, str) else ""
        if not caption:
            raise SourceError(f"captioner: {self.client.host} gave no caption for a picture; try another model")
        return caption[:MAX_CHARS]

    def _body(self, url: str) -> dict[str, Any]:
        parts = [{"type": "text", "text": INSTRUCTION}, {"type": "image_url", "image_url": {"url": url}}]
        body: dict[str, Any] = {"messages": [{"role": "user", "content": parts}]}
        if self.settings.model:
            body["model"] = self.settings.model
        if self.settings.temperature:
            body["temperature"] = 0
        return body


def _data_url(picture: Pixels) -> str:
    """The pixels as a PNG file, within MAX_SIDE_PX."""
    image = Image.fromarray(picture)
    image.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
