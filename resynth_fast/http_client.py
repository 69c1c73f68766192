"""The network side of an HTTP API, of pictures or of captions: one request at a time, paced, capped, repeated where that may help.

Nothing is sent to anybody but the host that the user named: no redirect is followed, no link in an answer is opened.
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
"""Answers after which the same request may succeed."""
CONNECT_S = 10.0
MAX_WAIT_S = 120.0
"""The longest pause that a server may ask for."""
MAX_ANSWER_BYTES = MAX_FILE_BYTES * 4 // 3 + 2**20
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, kw_only=True)
class EndpointSettings:
    """What may follow the # of any address, as KEY=VALUE separated by commas."""

    ROLE: ClassVar[str] = "candidate"
    KEPT: ClassVar[str] = " (the pictures so far are cached)"
    """Added to the error that ends a run, where a next one goes on from there."""

    model: str = ""
    """Sent as `model`; left out where empty."""
    key: str = ""
    """Name of the environment variable that holds the API key; none is sent where empty."""
    limit: int = 100
    """The most requests sent in one run, repeated ones included: each may cost."""
    price: float = 0.0
    """Cost of a request, in whatever currency; with `budget`, a second cap."""
    budget: float = 0.0
    per_minute: float = 60.0
    """Requests a minute at most."""
    parallel: int = 4
    """Requests under way at once."""
    timeout: float = 180.0
    """Seconds for one answer, its last byte included."""

    @property
    def cap(self) -> int:
        """Requests that one run may send."""
        return min(self.limit, int(self.budget / self.price + 1e-9)) if self.price else self.limit

    @classmethod
    def who(cls, name: str) -> str:
        """As errors call what is behind the address."""
        return f"{cls.ROLE} {name}".rstrip()

    @classmethod
    def read(cls, name: str, text: str) -> Self:
        """ConfigError, naming the candidate or captioner, the setting and what is allowed."""
        kinds = {f.name: type(f.default) for f in fields(cls)}
        given: dict[str, Any] = {}
        for entry in filter(None, text.split(",")):
            setting, _, value = entry.partition("=")
            if setting not in kinds:
                raise ConfigError(f"{cls.who(name)}: there is no setting {printable(setting, 80)!r}; there are {', '.join(kinds)}")
            given[setting] = _value(f"{cls.who(name)}: {setting}", kinds[setting], value)
        settings = cls(**given)
        if (settings.price > 0) != (settings.budget > 0):
            raise ConfigError(f"{cls.who(name)}: price and budget belong together; give both or neither")
        return settings


@dataclass(frozen=True, kw_only=True)
class Settings(EndpointSettings):
    """What may follow the # of an images API's address."""

    size: str = ""
    """As in 1024x1024; left out where empty, as is the next one."""
    quality: str = ""
    seed: bool = False
    """Whether the server takes a `seed`; else its pictures differ only because it draws them anew."""
    format: str = "b64_json"
    """`response_format`; `none` leaves it out, for a server that always answers in base64 and refuses the field."""

    @classmethod
    def read(cls, name: str, text: str) -> Self:
        """See `EndpointSettings.read`."""
        settings = super().read(name, text)
        if settings.format not in ("b64_json", "none"):
            raise ConfigError(f"candidate {name}: format is {settings.format!r}; it must be b64_json or none")
        return settings


class Client:
    """One server, and what this run may still ask of it. May be used by several threads at once."""

    def __init__(
        self,
        name: str,
        base: str,
        settings: EndpointSettings,
        wait: Callable[[float], None] = time.sleep,
        *,
        path: str = "images/generations",
    ) -> None:
        """`name`: of the candidate or captioner, for errors; `base`: the address without settings; `wait`: how to pass seconds;
        `path`: what is asked, behind /v1/.

        ConfigError for an address that is neither https nor on this machine, a key that is not there, a library that is
        not installed.
        """
        try:
            import tenacity  # noqa: F401 (its absence is told before anything is paid for)
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
        """The bytes of the picture that answers `body`.

        Raises SourceError if the server cannot be reached, refuses or answers with anything else, ConfigError once this
        run's cap is reached.
        """
        content = self.answer(body)
        try:
            [entry] = json.loads(content)["data"]
            if "b64_json" not in entry:
                raise SourceError(
                    f"{self._place} sent a link, which is not opened; it must answer in base64, with response_format or by itself"
                )
            return base64.b64decode(entry["b64_json"], validate=True)
        except (KeyError, TypeError, ValueError, RecursionError, binascii.Error) as error:
            raise SourceError(f"{self._place} did not answer as an images API does; check the address") from error

    @property
    def _place(self) -> str:
        return f"{self._who}: {self.host}"

    def answer(self, body: dict[str, Any]) -> bytes:
        """Send `body` and return the answer. Raises as `picture`.

        It is sent again where that may help, after a growing pause or the pause that the server asks for.
        """
        from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

        growing = wait_exponential_jitter(initial=1, max=30)

        def pause(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            return max(growing(state), error.pause_s if isinstance(error, _TransientError) else 0.0)

        repeated = Retrying(
            stop=stop_after_attempt(ATTEMPTS), wait=pause, retry=retry_if_exception_type(_TransientError), sleep=self._wait, reraise=True
        )
        try:
            return repeated(self._once, json.dumps(body).encode())
        except _TransientError as error:
            raise SourceError(f"{self._place} {error}, {ATTEMPTS} times; try again later{self._settings.KEPT}") from error

    def _once(self, body: bytes) -> bytes:
        self._enter()
        status, pause_s, content = self._send(body)
        if status == 200:
            return content
        said = f"answered {status}: {printable(self._redacted(_message(content)), 300)}"
        if status in TRANSIENT and pause_s <= MAX_WAIT_S:
            raise _TransientError(said, pause_s)
        raise SourceError(f"{self._place} {said}; check {'the key' if status in (401, 403) else 'address, model, settings and balance'}")

    def _enter(self) -> None:
        """Count a request, and wait for its turn."""
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
        """Status, pause asked for in s, and content, within the limits of size and time."""
        import urllib3

        late = SourceError(f"{self._place} took more than {self._settings.timeout:g} s; raise timeout=")
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
                        raise SourceError(f"{self._place} answered with more than {MAX_ANSWER_BYTES:,} bytes; ask for a smaller size=")
                    if time.monotonic() > deadline:
                        raise late
            finally:
                response.close()
            return response.status, _seconds(response.headers.get("Retry-After", "")), bytes(content)
        except urllib3.exceptions.ReadTimeoutError as error:  # it may be at work, and be paid for it: not asked again
            raise late from error
        except urllib3.exceptions.SSLError as error:
            raise SourceError(f"{self._place} has no certificate that can be trusted ({error}); check the address") from error
        except urllib3.exceptions.HTTPError as error:
            raise _TransientError(f"cannot be reached ({type(error).__name__})") from error

    def _redacted(self, text: str) -> str:
        return text.replace(self._key, "…") if self._key else text


class _TransientError(Exception):
    """What may go away by itself."""

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
    """Where to post, and the host."""
    try:
        parts = urlsplit(base)
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        raise ConfigError(f"{who}: its address cannot be read ({error}); as in https://api.example.com#model=MODEL") from error
    if parts.username or parts.password:  # not repeated: it may be a password
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
    """What the server says is wrong."""
    try:
        error = json.loads(content)["error"]
        return str(error["message"] if isinstance(error, dict) else error)
    except (KeyError, TypeError, ValueError, RecursionError):
        return content[:300].decode("utf-8", "replace") or "nothing"


def _seconds(retry_after: str) -> float:
    """A Retry-After header, a number or a date, in seconds from now; 0 where it says nothing."""
    try:
        return max(0.0, float(int(retry_after)))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return 0.0
