"""A captioner behind an HTTP endpoint that takes pictures in OpenAI's form: `POST /v1/chat/completions`.

    https://HOST[/PATH][#KEY=VALUE,…]      for example  https://api.acme.example#model=acme-vision,key=ACME_KEY

Settings after the # are never sent as part of the address; `Settings` lists them. A picture leaves this machine only if
the user names such an address. Its pixels are sent, never the file, whose metadata may reveal more than the picture shows.
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
"""Larger pictures are sent at this size, which is enough for a caption."""
MAX_CHARS = 2000


@dataclass(frozen=True, kw_only=True)
class Settings(EndpointSettings):
    """Settings that may follow the # of the address."""

    ROLE: ClassVar[str] = "captioner"
    KEPT: ClassVar[str] = ""

    limit: int = 1000
    timeout: float = 60.0
    temperature: bool = True
    """Whether temperature 0 is requested; `no` for servers that refuse the field."""


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
    """Requests captions of pictures from a server."""

    def __init__(self, address: str, *, wait: Callable[[float], None] = time.sleep) -> None:
        """`wait` sleeps for a number of seconds. ConfigError for an unusable address, setting or key."""
        base, _, settings = address.partition("#")
        self.settings = Settings.read("", settings)
        self.client = Client("", base, self.settings, wait, path="chat/completions")
        self.name = f"{self.settings.model} at {self.client.host}" if self.settings.model else self.client.host
        request = {"url": self.client.url, "body": self._body(""), "max_side_px": MAX_SIDE_PX}
        self.sha256 = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()

    def caption(self, pictures: Sequence[Pixels]) -> list[str]:
        """See `Captioner.caption`; SourceError if an answer is not a caption, ConfigError if this run's cap is reached."""
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
