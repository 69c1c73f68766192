"""A server on the loopback whose answers a test sets; it records its requests."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, dict[str, str], bytes]
"""Status, headers, content."""


class Server:
    """Answers the n-th POST, whose body is JSON, with `respond(body, n)`, in pieces of `piece` bytes with pauses of `pause_s`."""

    def __init__(self) -> None:
        self.respond: Callable[[dict[str, Any], int], Answer] = lambda body, number: (404, {}, b"")
        self.requests: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.under_way = self.most = 0
        self.piece, self.pause_s = 2**20, 0.0
        lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    outer.requests.append((self.path, dict(self.headers), body))
                    number = len(outer.requests)
                    outer.under_way += 1
                    outer.most = max(outer.most, outer.under_way)
                status, headers, content = outer.respond(body, number)
                with lock:
                    outer.under_way -= 1
                self.send_response(status)
                for name, value in ({"Content-Length": str(len(content))} | headers).items():
                    self.send_header(name, value)
                self.end_headers()
                with contextlib.suppress(OSError):  # a client that has gone
                    for i in range(0, len(content), outer.piece):
                        self.wfile.write(content[i : i + outer.piece])
                        time.sleep(outer.pause_s)

            def do_GET(self) -> None:
                outer.requests.append((self.path, {}, {}))
                self.send_error(404)

            def log_message(self, *_: Any) -> None: ...

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> Server:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()
