"""Client of an HTTP API that generates pictures or captions. Requests are paced, capped, and repeated after a transient failure.

Requests go to no host but the one that the user named: no redirect is followed, and no link in an answer is opened.
"""

from __future__ import annotations

import base64
import binascii
import email.utils
import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from .errors import ConfigError, SourceError
from .images import printable
from .images.reading import MAX_FILE_BYTES

ATTEMPTS = 5
TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP status codes after which the same request may succeed."""
CONNECT_S = 10.0
MAX_WAIT_S = 120.0
"""Longest pause that is accepted from a server's Retry-After header."""
MAX_ANSWER_BYTES = MAX_FILE_BYTES * 4 // 3 + 2**20
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, kw_only=True)
class EndpointSettings:
    """Settings that may follow the # of any address, as KEY=VALUE separated by commas."""

    ROLE: ClassVar[str] = "candidate"
    KEPT: ClassVar[str] = " (the pictures so far are cached)"
    """Added to the error that ends a run, if the next run continues from there."""

    model: str = ""
    """Sent as `model`; not sent if empty."""
    key: str = ""
    """Name of the environment variable that holds the API key; if empty, no key is sent."""
    limit: int = 100
    """Maximum number of requests in one run. Repeated ones count too, since each may cost."""
    price: float = 0.0
    """Cost of a request, in any currency. `budget / price` is a second cap on the number of requests."""
    budget: float = 0.0
    """Maximum cost of one run, in the currency of `price`."""
    per_minute: float = 60.0
    """Maximum number of requests per minute."""
    parallel: int = 4
    """Number of concurrent requests."""
    timeout: float = 180.0
    """Seconds until the last byte of an answer must have arrived."""

    @property
    def cap(self) -> int:
        """Maximum number of requests of one run, by `limit` and by `budget`."""
        return min(self.limit, int(self.budget / self.price + 1e-9)) if self.price else self.limit

    @classmethod
    def who(cls, name: str) -> str:
        """Name of the candidate or captioner in error messages."""
        return f"{cls.ROLE} {name}".rstrip()

    @classmethod
    def read(cls, name: str, text: str) -> Self:
        """Parse the settings of an address. ConfigError names the candidate or captioner, the setting and what is allowed."""
        kinds = {f.name: type(f.default) for f in fields(cls)}
        values: dict[str, Any] = {}
        for entry in filter(None, text.split(",")):
            setting, _, value = entry.partition("=")
            if setting not in kinds:
                raise ConfigError(f"{cls.who(name)}: there is no setting {printable(setting, 80)!r}; there are {', '.join(kinds)}")
            values[setting] = _value(f"{cls.who(name)}: {setting}", kinds[setting], value)
        settings = cls(**values)
        if (settings.price > 0) != (settings.budget > 0):
            raise ConfigError(f"{cls.who(name)}: price and budget belong together; give both or neither")
        return settings


@dataclass(frozen=True, kw_only=True)
class Settings(EndpointSettings):
    """Settings that may follow the # of an images API's address."""

    size: str = ""
    """As in 1024x1024; not sent if empty."""
    quality: str = ""
    """Sent as `quality`; not sent if empty."""
    seed: bool = False
    """Whether the server takes a `seed`. Otherwise pictures of one prompt differ because each request is generated anew."""
    format: str = "b64_json"
    """Sent as `response_format`. `none` leaves the field out, for servers that refuse it and always answer in base64."""

    @classmethod
    def read(cls, name: str, text: str) -> Self:
        """See `EndpointSettings.read`."""
        settings = super().read(name, text)
        if settings.format not in ("b64_json", "none"):
            raise ConfigError(f"candidate {name}: format is {settings.format!r}; it must be b64_json or none")
        return settings


class Client:
    """Connection to one server, with the number of requests that this run may still send. Several threads may use it at once."""

    def __init__(
        self,
        name: str,
        base: str,
        settings: EndpointSettings,
        wait: Callable[[float], None] = time.sleep,
        *,
        path: str = "images/generations",
    ) -> None:
        """Check the address and the key. Nothing is sent yet.

        Args:
            name: Name of the candidate or captioner, for errors.
            base: Address without settings.
            settings: Settings of the address.
            wait: Function that sleeps for a number of seconds.
            path: Path of the request, after /v1/.

        Raises:
            ConfigError: The address is neither https nor on this machine, the key is missing, or a library is not installed.
        """
        try:
            import tenacity  # noqa: F401 (a missing library is reported before any request is paid for)
            import urllib3
        except ImportError as error:
            raise ConfigError(f"{settings.who(name)} needs more libraries ({error}); pip install 'resynth-fast[http]'") from error
        self._who, self._settings, self._wait = settings.who(name), settings, wait
        self.url, self.host = _address(self._who, base, path)
        self._key = _key(self._who, settings.key)
        proxy = None if self.host in _LOOPBACK or proxy_bypass(self.host) else getproxies().get(urlsplit(self.url).scheme)
        self._pool = urllib3.ProxyManager(proxy, maxsize=settings.parallel) if proxy else urllib3.PoolManager(maxsize=settings.parallel)
        self._lock = threading.Lock()
        self._sent = 0
        self._next = 0.0

    def picture(self, body: dict[str, Any]) -> bytes:
        """Request a picture with `body`, and return the bytes of its file.

        Raises:
            SourceError: The server cannot be reached, refuses, or its answer is not a picture.
            ConfigError: This run's cap is reached.
        """
        content = self.answer(body)
        try:
            [entry] = json.loads(content)["data"]
            if "b64_json" not in entry:
                raise SourceError(
                    f"{self._endpoint} sent a link, which is not opened; it must answer in base64, with response_format or by itself"
                )
            return base64.b64decode(entry["b64_json"], validate=True)
        except (KeyError, TypeError, ValueError, RecursionError, binascii.Error) as error:
            raise SourceError(f"{self._endpoint} did not answer as an images API does; check the address") from error

    @property
    def _endpoint(self) -> str:
        return f"{self._who}: {self.host}"

    def answer(self, body: dict[str, Any]) -> bytes:
        """Send `body` and return the answer. Raises as `picture`.

        Transient failures are repeated, after a growing pause or the server's Retry-After if that is longer.
        """
        from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

        growing = wait_exponential_jitter(initial=1, max=30)

        def pause(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            return max(growing(state), error.pause_s if isinstance(error, _TransientError) else 0.0)

        retrying = Retrying(
            stop=stop_after_attempt(ATTEMPTS), wait=pause, retry=retry_if_exception_type(_TransientError), sleep=self._wait, reraise=True
        )
        try:
            return retrying(self._once, json.dumps(body).encode())
        except _TransientError as error:
            raise SourceError(f"{self._endpoint} {error}, {ATTEMPTS} times; try again later{self._settings.KEPT}") from error

    def _once(self, body: bytes) -> bytes:
        self._enter()
        status, pause_s, content = self._send(body)
        if status == 200:
            return content
        failure = f"answered {status}: {printable(self._redacted(_message(content)), 300)}"
        if status in TRANSIENT and pause_s <= MAX_WAIT_S:
            raise _TransientError(failure, pause_s)
        raise SourceError(
            f"{self._endpoint} {failure}; check {'the key' if status in (401, 403) else 'address, model, settings and balance'}"
        )

    def _enter(self) -> None:
        """Count a request, and wait until the pace allows it."""
        with self._lock:
            if self._sent >= self._settings.cap:
                raise ConfigError(
                    f"{self._who}: the cap of {self._settings.cap} requests a run is reached{self._settings.KEPT}; "
                    "run again to go on, or raise limit= (or budget=) behind the # of its address"
                )
            self._sent += 1
            now = time.monotonic()
            start = max(now, self._next)
            self._next = start + 60 / self._settings.per_minute
        if start > now:
            self._wait(start - now)

    def _send(self, body: bytes) -> tuple[int, float, bytes]:
        """Send one request: the status, the server's Retry-After in s, and the content, within the limits of size and time."""
        import urllib3

        late = SourceError(f"{self._endpoint} took more than {self._settings.timeout:g} s; raise timeout=")
        deadline = time.monotonic() + self._settings.timeout
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "resynth-fast"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        timeout = urllib3.Timeout(connect=min(CONNECT_S, self._settings.timeout), read=self._settings.timeout)
        try:
            response = self._pool.request(
                "POST", self.url, body=body, headers=headers, timeout=timeout, retries=False, redirect=False, preload_content=False
            )
            content = bytearray()
            try:
                while chunk := response.read1(2**16, decode_content=True):
                    content += chunk
                    if len(content) > MAX_ANSWER_BYTES:
                        raise SourceError(f"{self._endpoint} answered with more than {MAX_ANSWER_BYTES:,} bytes; ask for a smaller size=")
                    if time.monotonic() > deadline:
                        raise late
            finally:
                response.close()
            return response.status, _seconds(response.headers.get("Retry-After", "")), bytes(content)
        except urllib3.exceptions.ReadTimeoutError as error:  # the server may be working on it and charge for it, so it is not repeated
            raise late from error
        except urllib3.exceptions.SSLError as error:
            raise SourceError(f"{self._endpoint} has no certificate that can be trusted ({error}); check the address") from error
        except urllib3.exceptions.HTTPError as error:
            raise _TransientError(f"cannot be reached ({type(error).__name__})") from error

    def _redacted(self, text: str) -> str:
        return text.replace(self._key, "…") if self._key else text


class _TransientError(Exception):
    """A failure after which the same request may succeed."""

    def __init__(self, message: str, pause_s: float = 0.0) -> None:
        super().__init__(message)
        self.pause_s = pause_s


def _value(field: str, kind: type, text: str) -> object:
    if kind is str:
        return text
    if kind is bool:
        if text not in ("yes", "no"):
            raise ConfigError(f"{field} is {printable(text, 80)!r}; it must be yes or no")
        return text == "yes"
    try:
        value = kind(text)
    except ValueError:
        value = 0
    if not 0 < value < 1e9:
        raise ConfigError(f"{field} is {printable(text, 80)!r}; it must be a{' whole' if kind is int else ''} number above 0")
    return value


def _address(who: str, base: str, path: str) -> tuple[str, str]:
    """URL of the request, and its host."""
    try:
        parts = urlsplit(base)
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        raise ConfigError(f"{who}: its address cannot be read ({error}); as in https://api.example.com#model=MODEL") from error
    if parts.username or parts.password:  # the message does not repeat it: it may be a password
        raise ConfigError(f"{who}: its address holds a user name; put the key into an environment variable and name it by #key=")
    if not host or parts.scheme not in ("https", "http") or (parts.scheme == "http" and host not in _LOOPBACK):
        raise ConfigError(f"{who}: {printable(base, 200)!r} must be https://…, or http:// on this machine")
    root = parts.path.rstrip("/")
    root = root if root.endswith("/v1") else root + "/v1"
    return f"{parts.scheme}://{parts.netloc}{root}/{path}{'?' + parts.query if parts.query else ''}", host


def _key(who: str, variable: str) -> str:
    if not variable:
        return ""
    key = os.environ.get(variable, "").strip()
    if not key or not key.isascii() or not key.isprintable():
        raise ConfigError(f"{who}: the environment variable {printable(variable, 80)} holds no API key; export it, or drop key=")
    return key


def _message(content: bytes) -> str:
    """The error message in a server's answer."""
    try:
        error = json.loads(content)["error"]
        return str(error["message"] if isinstance(error, dict) else error)
    except (KeyError, TypeError, ValueError, RecursionError):
        return content[:300].decode("utf-8", "replace") or "nothing"


def _seconds(retry_after: str) -> float:
    """A Retry-After header, a number or a date, in seconds from now; 0 if it is neither."""
    try:
        return max(0.0, float(int(retry_after)))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return 0.0
